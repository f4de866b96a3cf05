//! The views of single lines: recent events, and samples of rejected lines.

use super::view::{View, ViewColumn, column, of};
use crate::field::{Field, FieldType};
use crate::reserved_names::{EVENTS_RECENT, REJECTED_LINES};

pub(super) fn events_recent(fields: &[Field], database: &str) -> View {
    let plain = |name: &str, kind: &'static str, comment: &str| column(name, kind, comment, &of(name));
    let columns = [
        plain("tenant", "String", "whose data it is"),
        plain("event", "String", "name"),
        plain(
            "client_time",
            "DateTime64(3, 'UTC')",
            "when it happened, as sent; server_time if nothing was sent",
        ),
        plain("server_time", "DateTime64(3, 'UTC')", "when the request arrived"),
        column("ip", "String", "address of the client", "replaceRegexpOne(toString(T.`ip`), '^::ffff:', '')"),
        plain("user_id", "String", "who did it"),
        plain("device_id", "String", "on which device"),
        plain("device_os", "String", "operating system of the device"),
        plain("session", "String", "session it belongs to"),
        plain("sequence", "UInt64", "position in the session"),
        plain("param_int", "Int64", "a number of the client's"),
        plain("param_str", "String", "a text of the client's"),
        plain("country", "String", "two or three letters, upper case"),
        plain("event_id", "UUID", "identity; zero if none"),
        plain("props", "String", "all other fields, as JSON text"),
    ];
    let columns = columns.into_iter().chain(fields.iter().map(of_field)).collect();
    View {
        name: EVENTS_RECENT.to_owned(),
        comment: "single events of the last 31 days, as stored".to_owned(),
        columns,
        table: "events",
        from: format!("FROM {database}.events AS T WHERE T.`tenant` != ''"),
    }
}

fn of_field(field: &Field) -> ViewColumn {
    let name = field.column();
    match field.kind {
        // BI tools differ in how they show booleans.
        FieldType::Bool => column(&name, "Int64", &field.comment(), &format!("toInt64({})", of(&name))),
        kind => column(&name, kind.column_type(), &field.comment(), &of(&name)),
    }
}

pub(super) fn rejected_lines(database: &str) -> View {
    let columns = vec![
        column("tenant", "String", "whose data it would have been", &of("tenant")),
        column("received", "DateTime64(3, 'UTC')", "when Kafka took the sample", &of("kafka_time")),
        column("code", "String", "what is wrong, as the sender was told", "splitByChar(':', T.`reason`)[2]"),
        column("field", "String", "with which field; empty if with none", "splitByChar(':', T.`reason`)[3]"),
        column("line", "String", "the first 4 KiB of the line as sent", &of("text")),
    ];
    View {
        name: REJECTED_LINES.to_owned(),
        comment:
            "samples of lines that were rejected, at most ten a second of each edge, of the last 14 days"
                .to_owned(),
        columns,
        table: "dead_letters",
        from: format!(
            "FROM {database}.dead_letters AS T WHERE T.`tenant` != '' AND startsWith(T.`reason`, 'edge:')"
        ),
    }
}
