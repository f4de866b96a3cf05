//! Stores the JSON lines of a Kafka topic in the ClickHouse table `events`, with the pipeline library Spate. The
//! settings are those that Spate's documentation recommends for speed: simd-json, inserts in Native format from chunks
//! of 512 KiB, and batches of 500,000 rows.
//!
//! `./dev bench --peers` compares this program with the aggregator. The bench creates the table, and materialized views
//! on the table, which fill two rollups. Then it starts this program with the variables `KAFKA_BROKERS`, `TOPIC`,
//! `GROUP`, `CLICKHOUSE_URL`, `CLICKHOUSE_DATABASE` and `WORK` (the kind of events).

use std::env;
use std::error::Error;
use std::net::{IpAddr, Ipv6Addr};

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use spate::clickhouse::{DateTime64Millis, Decimal64, NativeEncoder};
use spate::json::{JsonDeserializerBuilder, JsonFraming, JsonSettings, OnError};
use spate::kafka::KafkaSource;
use spate::prelude::*;

const CONFIG: &str = r#"
pipeline: { name: bench, io_threads: 2 }
checkpoint: { interval: 5s }
backpressure: { max_inflight_bytes: 1GiB }
admin: { listen: none }
metrics: { exporter: none }
source:
  kafka:
    brokers: ${KAFKA_BROKERS}
    topic: ${TOPIC}
    group_id: ${GROUP}
    rdkafka: { auto.offset.reset: earliest }
sink:
  clickhouse:
    table: events
    database: ${CLICKHOUSE_DATABASE}
    columns: [COLUMNS]
    shards: [{ replicas: ["${CLICKHOUSE_URL}"] }]
    format: native
    batch: { max_rows: 500000, max_bytes: 128MiB, linger: 1s }
    inflight: { max_per_shard: 2 }
    chunk: { target_bytes: 512KiB }
"#;

/// Declares a type that is deserialized from a line and serialized as a row. The type has the fields of every event,
/// then the `$further` fields. `COLUMNS` lists all fields in the same order.
macro_rules! row {
    ($name:ident { $($(#[$attribute:meta])* $further:ident: $kind:ty),* $(,)? }) => {
        #[derive(Deserialize, Serialize)]
        struct $name {
            tenant: String,
            event: String,
            #[serde(deserialize_with = "time")]
            client_time: DateTime64Millis,
            #[serde(deserialize_with = "time")]
            server_time: DateTime64Millis,
            #[serde(deserialize_with = "address")]
            ip: Ipv6Addr,
            device_id: String,
            device_os: String,
            session: String,
            sequence: u64,
            param_int: i64,
            param_str: String,
            country: String,
            $($(#[$attribute])* $further: $kind,)*
        }

        impl $name {
            const COLUMNS: &str = concat!(
                "tenant, event, client_time, server_time, ip, device_id, device_os, session, sequence, ",
                "param_int, param_str, country", $(", ", stringify!($further),)*
            );
        }
    };
}

row!(Lean {});
row!(Rich {
    plan: String,
    screen: String,
    search: String,
    item: String,
    #[serde(deserialize_with = "cents")]
    price: Decimal64<2>,
    level: u32,
    #[serde(deserialize_with = "app")]
    app: String,
    premium: bool,
});

fn main() -> Result<(), Box<dyn Error>> {
    match env::var("WORK")?.as_str() {
        "rich" => drain::<Rich>(Rich::COLUMNS),
        _ => drain::<Lean>(Lean::COLUMNS),
    }
}

fn drain<T>(columns: &str) -> Result<(), Box<dyn Error>>
where
    T: for<'a> Deserialize<'a> + Serialize + Send + 'static,
{
    let config = CONFIG.replace("COLUMNS", columns);
    let pipeline = Pipeline::from_config(PipelineConfig::from_str(&config)?)?;
    let source = KafkaSource::from_component_config(&pipeline.config().source)?;
    let sink = spate::clickhouse::config::from_component_config(pipeline.config().sink_config("default")?)?;
    let schema = pipeline.block_on(sink.native_schema())?;
    let report = pipeline
        .sink(sink)?
        .chains(move |ctx| {
            let chunk = ctx.chunk();
            let settings = JsonSettings {
                framing: JsonFraming::Ndjson,
                on_error: OnError::Fail,
                reject_duplicate_keys: false,
            };
            let lines = JsonDeserializerBuilder::from_settings(settings).build_serde::<T>();
            chain_owned::<T, _>(lines)
                .with_metrics(ctx.pipeline, "main")
                .sink(
                    NativeEncoder::<Owned<T>>::new(schema.clone()),
                    KeyHashRouter,
                    chunk,
                    ctx.queues,
                    ctx.budget,
                )
                .build()
        })
        .run(source)?;
    std::process::exit(report.exit_code());
}

/// Parses a time such as `2026-11-21 04:00:00.123`. All times in the bench's records have this format.
fn time<'a, D: Deserializer<'a>>(deserializer: D) -> Result<DateTime64Millis, D::Error> {
    let text = String::deserialize(deserializer)?;
    millis(text.as_bytes()).map(DateTime64Millis).ok_or_else(|| D::Error::custom(format!("bad time: {text}")))
}

fn millis(text: &[u8]) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        text.get(from..to)?.iter().try_fold(0, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
        })
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    // Computes the days since 1970-01-01. Here a year begins in March, so that a leap day is the last day of its year.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?;
    Some(seconds * 1_000 + number(20, 23)?)
}

fn address<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Ipv6Addr, D::Error> {
    Ok(match String::deserialize(deserializer)?.parse().map_err(D::Error::custom)? {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    })
}

fn cents<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Decimal64<2>, D::Error> {
    Ok(Decimal64((f64::deserialize(deserializer)? * 100.0).round() as i64))
}

/// Deserializes the nested object `app` and formats it as JSON text again, because simd-json cannot return the original
/// text of a value.
fn app<'a, D: Deserializer<'a>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    struct App {
        version: String,
        build: u32,
        channel: String,
    }
    let App { version, build, channel } = App::deserialize(deserializer)?;
    Ok(format!(r#"{{"version":"{version}","build":{build},"channel":"{channel}"}}"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_milliseconds_since_1970() {
        assert_eq!(millis(b"1970-01-01 00:00:00.001"), Some(1));
        assert_eq!(millis(b"2024-02-29 23:59:59.999"), Some(1_709_251_199_999));
        assert_eq!(millis(b"2026-01-01 00:30:00.000"), Some(1_767_227_400_000));
        assert_eq!(millis(b"2026-01-01"), None);
    }
}
