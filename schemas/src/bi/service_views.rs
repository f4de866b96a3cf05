//! The views about the pipeline itself, and the view of the table `country_totals`.

use super::Databases;
use super::int64;
use super::view::{Kind, Owner, View, column, of, text_of};
use crate::reserved_names::{COUNTRY_TOTALS, FRESHNESS, PIPELINE_HEALTH};

/// The view with the column `as_of`: everything that was in Kafka before the moment `as_of` is counted.
pub(super) const AS_OF: &str = FRESHNESS;

const AS_OF_COMMENT: &str =
    "everything that was in Kafka before this moment is counted; 1970-01-01 if unknown";

/// A view of one row. `as_of` is unknown until the aggregator has reported every partition of the newest generation of
/// the Kafka log. The view is a single scan, because every query of a view with the column `complete` waits for that
/// scan. `FINAL` reads both columns of the sorting key, `g` (the generation) and `kp` (the Kafka partition). The SQL
/// must name both, because the definer is granted only the columns that the SQL of its views names.
pub(super) fn freshness(on: Databases<'_>) -> View {
    View {
        name: FRESHNESS.to_owned(),
        comment: "one row: how fresh all other views are".to_owned(),
        owner: Owner::Freshness,
        columns: vec![column("as_of", Kind::DateTime64, AS_OF_COMMENT, "argMax(L.known, L.g)")],
        table: "progress",
        from: format!(
            "FROM (SELECT T.g AS g, if(count(T.kp) >= max(T.partitions), min(T.as_of), toDateTime64(0, 3, 'UTC')) AS known \
             FROM {}.progress AS T FINAL GROUP BY T.g) AS L",
            on.tables
        ),
    }
}

/// The numbers of lines that were stored, repeat an event, or became dead letters, by the hour in which Kafka appended
/// their records. The view does not distinguish tenants, because a row of the ledger counts the lines of all tenants in
/// its record.
pub(super) fn pipeline_health(on: Databases<'_>) -> View {
    const HOUR: &str = "toStartOfHour(toDateTime(T.`kafka_time`, 'UTC'))";
    let sum = |name: &str, comment: &str, of_what: &str| {
        let sum = int64::of_u64(&format!("sum({})", of(of_what)));
        column(name, Kind::Int64, &format!("additive: {comment}"), &sum)
    };
    let columns = vec![
        column("hour", Kind::DateTime, "start of the hour in which Kafka appended the records, UTC", HOUR),
        column("records", Kind::Int64, "additive: records, each with one or more lines", "toInt64(count())"),
        sum("lines", "lines in the records, without samples of rejected lines", "lines"),
        sum("stored", "lines that were stored as events", "stored"),
        sum("duplicates", "lines that repeat an event and were not stored again", "duplicates"),
        sum(
            "rejected",
            "lines that became dead letters; the view dead_letters has those of the last 14 days",
            "rejected",
        ),
        sum("time_replaced", "events whose client_time was not accepted", "time_replaced"),
    ];
    View {
        name: PIPELINE_HEALTH.to_owned(),
        comment:
            "lines of all tenants by outcome: stored, repeated, dead letters; per hour of the last 30 days"
                .to_owned(),
        owner: Owner::Views,
        columns,
        table: "ledger",
        from: format!("FROM {}.ledger AS T WHERE T.`tenant` != '' GROUP BY {HOUR}", on.tables),
    }
}

pub(super) fn country_totals(on: Databases<'_>) -> View {
    let events = int64::of_u64(&of("events"));
    let columns = vec![
        column("tenant", Kind::String, "whose data it is", &text_of("tenant")),
        column("country", Kind::String, "two or three letters, upper case; never empty", &text_of("country")),
        column("events", Kind::Int64, "additive: views, plays and clicks of all time", &events),
        column("as_of", Kind::DateTime64, AS_OF_COMMENT, &of("as_of")),
    ];
    View {
        name: COUNTRY_TOTALS.to_owned(),
        comment: "views, plays and clicks of all time by country; refreshed every 5 seconds".to_owned(),
        owner: Owner::Views,
        columns,
        table: COUNTRY_TOTALS,
        from: format!("FROM {}.{COUNTRY_TOTALS} AS T WHERE T.`tenant` != ''", on.tables),
    }
}
