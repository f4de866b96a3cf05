//! ClickHouse's own Kafka engine. The measurement `drain` compares it with the aggregator: each of them stores the
//! records that a topic already holds. Materialized views fill the raw table and two rollups, with the settings that
//! ClickHouse's documentation recommends for speed. The measurement can also compare the program Spate, which fills
//! tables with the same definitions.
//!
//! The engine needs a column for each additional field of a rich event, whereas Millrace accepts any field without one.
//! The engine stores neither partition nor offset, and it guarantees less: after a crash it may count a block twice.
//! It stores a block after about a million rows (`kafka_max_block_size`) or, by default, after 7.5 s. So the last,
//! incomplete block may wait some seconds, which lowers the rate but costs no CPU time. Compare the engine's CPU time
//! rather than its rate.

use std::num::NonZero;
use std::thread;

use crate::input::{PROPS, Work};

/// Columns that every event has.
const COLUMNS: [(&str, &str); 12] = [
    ("tenant", "LowCardinality(String)"),
    ("event", "LowCardinality(String)"),
    ("client_time", "DateTime64(3, 'UTC')"),
    ("server_time", "DateTime64(3, 'UTC')"),
    ("ip", "IPv6"),
    ("device_id", "String"),
    ("device_os", "LowCardinality(String)"),
    ("session", "String"),
    ("sequence", "UInt64"),
    ("param_int", "Int64"),
    ("param_str", "String"),
    ("country", "LowCardinality(String)"),
];

/// The statements that create the raw table, two rollups, and the materialized views that fill the rollups from the raw
/// table.
pub(crate) fn tables(work: Work) -> [String; 5] {
    let columns = definitions(work);
    [
        // Millrace's raw table had this sorting key when this comparison was written. This table does not follow later
        // changes of Millrace's key.
        format!(
            "CREATE TABLE events ({columns}) ENGINE = MergeTree
             PARTITION BY toYYYYMMDD(server_time)
             ORDER BY (tenant, event, toStartOfHour(client_time), device_id)"
        ),
        "CREATE TABLE event_hourly (tenant LowCardinality(String), bucket DateTime('UTC'),
             event LowCardinality(String), country LowCardinality(String), device_os LowCardinality(String),
             events UInt64, value Int64) ENGINE = SummingMergeTree
             ORDER BY (tenant, bucket, event, country, device_os)"
            .to_owned(),
        "CREATE TABLE users_hourly (tenant LowCardinality(String), bucket DateTime('UTC'),
             event LowCardinality(String), users AggregateFunction(uniqExact, UInt64))
             ENGINE = AggregatingMergeTree ORDER BY (tenant, bucket, event)"
            .to_owned(),
        "CREATE MATERIALIZED VIEW to_event_hourly TO event_hourly AS
             SELECT tenant, toDateTime(toStartOfHour(client_time), 'UTC') AS bucket, event, country, device_os,
                 count() AS events, sum(param_int) AS value
             FROM events GROUP BY tenant, bucket, event, country, device_os"
            .to_owned(),
        "CREATE MATERIALIZED VIEW to_users_hourly TO users_hourly AS
             SELECT tenant, toDateTime(toStartOfHour(client_time), 'UTC') AS bucket, event,
                 uniqExactState(xxh3(device_id)) AS users
             FROM events GROUP BY tenant, bucket, event"
            .to_owned(),
    ]
}

/// The statements that make the engine read `topic`; the last one starts it.
pub(crate) fn start(work: Work, brokers: &str, topic: &str, group: &str) -> [String; 2] {
    let consumers = thread::available_parallelism().map_or(1, NonZero::get);
    let columns = definitions(work);
    [
        format!(
            "CREATE TABLE feed ({columns}) ENGINE = Kafka SETTINGS
                 kafka_broker_list = '{brokers}', kafka_topic_list = '{topic}', kafka_group_name = '{group}',
                 kafka_format = 'JSONEachRow', kafka_num_consumers = {consumers}, kafka_thread_per_consumer = 1,
                 kafka_max_block_size = 1048576, kafka_poll_max_batch_size = 65536,
                 date_time_input_format = 'best_effort'"
        ),
        "CREATE MATERIALIZED VIEW to_events TO events AS SELECT * FROM feed".to_owned(),
    ]
}

fn columns(work: Work) -> impl Iterator<Item = (&'static str, &'static str)> {
    let props: &[_] = if work == Work::Rich { &PROPS } else { &[] };
    COLUMNS.iter().chain(props).copied()
}

fn definitions(work: Work) -> String {
    columns(work).map(|(name, kind)| format!("{name} {kind}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use devstack::traffic::BATCH;
    use schemas::time::UnixMillis;

    use super::*;
    use crate::input::Events;

    #[track_caller]
    fn check(work: Work) {
        let batch = Events::new(work).batch(UnixMillis(1_767_227_400_000));
        assert_eq!(batch.lines().count(), BATCH);
        let line = batch.lines().next().unwrap();
        for (name, _) in columns(work).filter(|(name, _)| !["tenant", "server_time", "ip"].contains(name)) {
            assert!(line.contains(&format!("\"{name}\":")), "{name} is not in {line}");
        }
        // The field `app` of a rich event is an object with three fields, which have no columns of their own.
        let fields = line.matches("\":").count() - if work == Work::Rich { 3 } else { 0 };
        // The edge adds the other three columns: `tenant`, `server_time` and `ip`.
        assert_eq!(fields + 3, columns(work).count(), "{line}");
    }

    #[test]
    fn every_field_of_a_line_is_a_column() {
        Work::ALL.into_iter().for_each(check);
    }
}
