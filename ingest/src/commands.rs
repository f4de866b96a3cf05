//! The subcommands `spool ls`, `spool replay` and `spool export`, for a spool whose edge is stopped.
//!
//! These subcommands fail while the edge runs, because the edge locks its spool file.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use schemas::time::UnixMillis;
use serde::Serialize;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::publish::{Publisher, StartError};
use crate::spool::store::{self, Store, StoreError};

/// How often a replay reports its progress.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Maximum number of records and bytes that an export holds in memory at once.
const EXPORT_BATCH: (usize, usize) = (1000, 4 << 20);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No spool is configured.
    #[error("variable SPOOL_DIR is not set: set it to the directory of the spool")]
    NoSpool,
    /// The spool file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Kafka's client cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The output cannot be written.
    #[error("write the output")]
    Write(#[from] io::Error),
    /// The replay was stopped before it had sent all records.
    #[error("send the spool to kafka: stopped before the end; {0} records stay in the spool")]
    Stopped(u64),
    /// Kafka's client has a fatal error and can send no more records.
    #[error("send the spool to kafka: {reason}; {left} records stay in the spool")]
    FatalError {
        /// The fatal error.
        reason: String,
        /// The number of records that stay in the spool.
        left: u64,
    },
}

#[derive(Serialize)]
struct ListedRecord {
    id: String,
    made: String,
    age_seconds: i64,
    partition: u32,
    lines: u32,
    bytes: u32,
}

/// Lists all records of the spool, oldest first, as a table or, if `as_json` is set, as a JSON array.
pub fn list(config: &Config, as_json: bool, out: &mut impl Write) -> Result<(), CommandError> {
    let store = open(config)?;
    let now = UnixMillis::from(SystemTime::now()).0;
    let listed = store.entries()?.into_iter().map(|entry| ListedRecord {
        id: entry.id.to_string(),
        made: entry.created_at().to_string(),
        age_seconds: (now - entry.created_at().0).max(0) / 1000,
        partition: entry.partition,
        lines: entry.lines,
        bytes: entry.bytes,
    });
    if as_json {
        let listed: Vec<_> = listed.collect();
        serde_json::to_writer(&mut *out, &listed).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{:36}  {:>8}  {:>9}  {:>6}  {:>8}", "RECORD", "AGE", "PARTITION", "LINES", "BYTES")?;
    for ListedRecord { id, age_seconds, partition, lines, bytes, .. } in listed {
        writeln!(out, "{id}  {age_seconds:>7}s  {partition:>9}  {lines:>6}  {bytes:>8}")?;
    }
    let store::SpoolTotals { records, bytes } = store.totals();
    writeln!(out, "{records} records, {bytes} bytes")?;
    Ok(())
}

/// Writes the lines of all records as NDJSON, oldest first. The records stay in the spool.
pub fn export(config: &Config, out: &mut impl Write) -> Result<(), CommandError> {
    let store = open(config)?;
    let mut last = Uuid::nil();
    loop {
        let records = store.oldest(last, EXPORT_BATCH.0, EXPORT_BATCH.1)?;
        let Some(record) = records.last() else { break };
        last = record.id;
        for record in &records {
            out.write_all(&record.value)?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Sends all records of the spool to Kafka and reports the progress. Fails if `stop` is cancelled, or if Kafka's client
/// has a fatal error, before the spool is empty.
pub async fn replay(
    config: &Config,
    stop: CancellationToken,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    // Open the file before the publisher does. If the file is in use or damaged, the command then fails at once. The
    // publisher would wait for a file that is in use, and would rename a damaged file and use an empty spool.
    let all = open(config)?.totals().records;
    let publisher = Publisher::start(&config.kafka, config.spool.as_ref(), &Arc::new(Metrics::new()))?;
    let mut reports = time::interval(REPORT_EVERY);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let left = publisher.records_in_spool();
        match left {
            Some(0) => break,
            Some(left) => writeln!(out, "{} of {all} records sent", all.saturating_sub(left))?,
            None => {}
        }
        if let Err(reason) = publisher.kafka_reachable() {
            writeln!(out, "waiting: {reason}")?;
        }
        tokio::select! {
            _ = reports.tick() => {}
            () = stop.cancelled() => return Err(CommandError::Stopped(left.unwrap_or(all))),
            reason = publisher.fatal_error() => {
                return Err(CommandError::FatalError { reason, left: left.unwrap_or(all) });
            }
        }
    }
    writeln!(out, "all {all} records are in kafka")?;
    Ok(())
}

fn open(config: &Config) -> Result<Store, CommandError> {
    let spool = config.spool.as_ref().ok_or(CommandError::NoSpool)?;
    Ok(Store::open(&store::path(&spool.directory, &config.kafka.topic))?)
}
