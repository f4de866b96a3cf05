//! The views of single lines: recent events, samples of rejected lines, and dead letters.

use super::Databases;
use super::int64;
use super::view::{Kind, Owner, View, ViewColumn, column, of, text_of};
use crate::field::{Field, FieldType};
use crate::reserved_names::{DEAD_LETTERS, EVENTS_RECENT, REJECTED_LINES};

pub(super) fn events_recent(fields: &[Field], on: Databases<'_>) -> View {
    let plain = |name: &str, kind: Kind, comment: &str| column(name, kind, comment, &of(name));
    let text = |name: &str, comment: &str| column(name, Kind::String, comment, &text_of(name));
    let columns = [
        text("tenant", "whose data it is"),
        text("event", "name of the event"),
        plain("client_time", Kind::DateTime64, "when it happened, as sent; server_time if nothing was sent"),
        plain("server_time", Kind::DateTime64, "when the request arrived"),
        column("ip", Kind::String, "address of the client; empty if none", IP),
        plain("user_id", Kind::String, "who did it"),
        plain("device_id", Kind::String, "on which device"),
        text("device_os", "operating system of the device"),
        plain("session", Kind::String, "session of the event"),
        column("sequence", Kind::Int64, "position in the session", &int64::of_u64(&of("sequence"))),
        plain("param_int", Kind::Int64, "a number of the client's"),
        plain("param_str", Kind::String, "a text of the client's"),
        text("country", "two or three letters, upper case"),
        column("event_id", Kind::String, "identity, a UUID; empty if none", EVENT_ID),
        plain("props", Kind::String, "all other fields, as JSON text"),
    ];
    let columns = columns.into_iter().chain(fields.iter().map(of_field)).collect();
    View {
        name: EVENTS_RECENT.to_owned(),
        comment: "single events of the last 31 days, as stored".to_owned(),
        owner: Owner::Views,
        columns,
        table: "events",
        from: format!("FROM {}.events AS T WHERE T.`tenant` != ''", on.tables),
    }
}

/// The address as text. The table stores IPv4 addresses as IPv6 addresses (`::ffff:192.0.2.1`).
const IP: &str = "if(T.`ip` = toIPv6('::'), '', replaceRegexpOne(toString(T.`ip`), '^::ffff:', ''))";

const EVENT_ID: &str =
    "if(T.`event_id` = toUUID('00000000-0000-0000-0000-000000000000'), '', toString(T.`event_id`))";

fn of_field(field: &Field) -> ViewColumn {
    let (name, comment) = (field.column(), field.comment());
    let kind = match field.kind {
        FieldType::String => Kind::String,
        // BI tools differ in how they show booleans, so the view shows 0 or 1.
        FieldType::Bool => {
            return column(&name, Kind::Int64, &comment, &format!("toInt64({})", of(&name)));
        }
        FieldType::Int => Kind::Int64,
        FieldType::Float => Kind::Float64,
        FieldType::Time => Kind::DateTime64,
    };
    column(&name, kind, &comment, &of(&name))
}

pub(super) fn rejected_lines(on: Databases<'_>) -> View {
    let columns = vec![
        column("tenant", Kind::String, "whose data it would have been", &text_of("tenant")),
        column("received", Kind::DateTime64, "when Kafka appended the sample", &of("kafka_time")),
        column(
            "code",
            Kind::String,
            "what is wrong: the code in the response to the sender",
            "splitByChar(':', CAST(T.`reason`, 'String'))[2]",
        ),
        column(
            "field",
            Kind::String,
            "the field that is wrong; empty if the fault is not in one field",
            "splitByChar(':', CAST(T.`reason`, 'String'))[3]",
        ),
        column("line", Kind::String, "the first 4 KiB of the line as sent", &of("text")),
    ];
    View {
        name: REJECTED_LINES.to_owned(),
        comment: "samples of lines that were rejected, at most ten per second and edge, of the last 14 days"
            .to_owned(),
        owner: Owner::Views,
        columns,
        table: DEAD_LETTERS,
        from: format!(
            "FROM {}.{DEAD_LETTERS} AS T WHERE T.`tenant` != '' AND startsWith(T.`reason`, 'edge:')",
            on.tables
        ),
    }
}

pub(super) fn dead_letters(on: Databases<'_>) -> View {
    let columns = vec![
        column("tenant", Kind::String, "whose data it is; ? if unknown", &text_of("tenant")),
        column("received", Kind::DateTime64, "when Kafka appended the record of the line", &of("kafka_time")),
        column("reason", Kind::String, "why the line is no event, as a stable code", &text_of("reason")),
        column("kafka_partition", Kind::Int64, "Kafka partition of the record", "toInt64(T.`kp`)"),
        column("kafka_offset", Kind::Int64, "offset of the record", &int64::of_u64(&of("ko"))),
        column(
            "line_number",
            Kind::Int64,
            "position among the lines of the record, from 0",
            "toInt64(T.`line`)",
        ),
        column("text", Kind::String, "the first 4 KiB of the line", &of("text")),
    ];
    View {
        name: DEAD_LETTERS.to_owned(),
        comment: "lines that were accepted and could not be stored as events, of the last 14 days".to_owned(),
        owner: Owner::Views,
        columns,
        table: DEAD_LETTERS,
        from: format!(
            "FROM {}.{DEAD_LETTERS} AS T WHERE T.`tenant` != '' AND NOT startsWith(T.`reason`, 'edge:')",
            on.tables
        ),
    }
}
