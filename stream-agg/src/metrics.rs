//! The metrics of the aggregator: one struct, registered once.
//!
//! Invariant: lines = rows + rejected + duplicates. A batch is counted when it is applied.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use runtime::metrics::{MetricDescription, MetricFactory};

/// All metrics, with their registry.
pub struct Metrics {
    /// The registry that the admin port shows.
    pub registry: Registry,
    /// The description of each metric.
    pub descriptions: Vec<MetricDescription>,
    records: IntCounter,
    lines: IntCounter,
    rows: IntCounter,
    rejected: IntCounter,
    duplicates: IntCounter,
    time_replaced: IntCounter,
    arrival_replaced: IntCounter,
    records_miscounted: IntCounter,
    rows_folded: IntCounter,
    fields_mistyped: IntCounter,
    batches: IntCounter,
    batch_rows: Histogram,
    insert_seconds: Histogram,
    insert_errors: IntCounterVec,
    commit_errors: IntCounter,
    last_batch: IntGauge,
    audit_missing: IntGauge,
    audit_duplicate: IntGauge,
    audit_gaps: IntGauge,
    last_audit: IntGauge,
    lag: IntGaugeVec,
    lag_seconds: IntGaugeVec,
    watermark: IntGauge,
    parts: IntGaugeVec,
    /// `cells_skipped_total`: cells that this process skipped because an earlier owner had inserted them.
    pub cells_skipped: IntCounter,
    /// `recovered_intents_total`: batches that an earlier owner declared and this process rebuilt.
    pub recovered_intents: IntCounter,
    /// `records_off_clock_total`: records whose Kafka time is implausible ([`crate::clock`]).
    pub records_off_clock: IntCounter,
    /// `joins_total`: how often this process joined the consumer group.
    pub joins: IntCounter,
    /// `orphans_total`: partitions that were found without an owner in the group.
    pub orphans: IntCounter,
    /// `partitions_owned`: partitions that have a pipeline.
    pub partitions_owned: IntGauge,
    /// `partitions_stopped`: partitions that are stopped until an operator acts.
    pub partitions_stopped: IntGauge,
    /// `parts_lost_total`: parts that ClickHouse does not have, although it acknowledged their inserts.
    pub parts_lost: IntCounter,
    /// `inserts_held`: 1 while nothing is inserted because a check of the tables found a problem.
    pub inserts_held: IntGauge,
}

/// What was counted in one batch, or in all batches since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records.
    pub records: u64,
    /// Lines in the records.
    pub lines: u64,
    /// Lines that became rows.
    pub rows: u64,
    /// Lines that became dead letters.
    pub rejected: u64,
    /// Lines that repeat stored lines.
    pub duplicates: u64,
    /// Rows whose `client_time` was not trusted; their event time is the time of arrival.
    pub time_replaced: u64,
    /// Rows whose `server_time` was not trusted; their time of arrival is Kafka's time.
    pub arrival_replaced: u64,
    /// Events that rollups count under `(other)`, summed over the rollups, because a rollup reached its limit of groups
    /// in a batch.
    pub folded_rows: u64,
    /// Values of declared fields that had another type than declared and were stored as the default.
    pub mistyped: u64,
}

/// Counts a partition as stopped, until the guard is dropped.
#[derive(Debug)]
pub struct StoppedGuard(IntGauge);

impl Drop for StoppedGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Why an insert failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertError {
    /// The insert's condition on the marker, the deadline and the server was not met. The markers are then read to find
    /// out which rows are stored.
    ConditionFailed,
    /// The same insert may succeed later without an operator.
    Transient,
    /// ClickHouse refuses the insert, and an operator must act.
    Refused,
}

impl InsertError {
    fn as_str(self) -> &'static str {
        match self {
            Self::ConditionFailed => "condition_failed",
            Self::Transient => "transient",
            Self::Refused => "refused",
        }
    }
}

/// All metrics at zero, in a new registry.
impl Default for Metrics {
    fn default() -> Self {
        let metrics = MetricFactory::new("stream_agg");
        let insert_errors =
            metrics.counter_vec("insert_errors_total", "Inserts that failed, by kind of failure.", &["kind"]);
        for kind in [InsertError::ConditionFailed, InsertError::Transient, InsertError::Refused] {
            insert_errors.with_label_values(&[kind.as_str()]);
        }
        Self {
            records: metrics.counter("records_total", "Records of applied batches."),
            lines: metrics.counter("lines_total", "Lines of applied batches."),
            rows: metrics.counter("rows_total", "Rows stored."),
            rejected: metrics.counter("rejected_total", "Lines that became dead letters."),
            duplicates: metrics.counter("duplicates_total", "Lines that repeat stored lines."),
            time_replaced: metrics.counter("time_replaced_total", "Rows whose client_time was not trusted."),
            arrival_replaced: metrics.counter(
                "arrival_replaced_total",
                "Rows whose server_time was not trusted because it is too far from Kafka's time: an edge's clock is \
                 wrong.",
            ),
            records_miscounted: metrics.counter(
                "records_miscounted_total",
                "Records whose number of lines differs from their header n; alert above 0.",
            ),
            rows_folded: metrics
                .counter("rows_folded_total", "Events that a rollup counts under (other), because it reached its limit of groups in a batch."),
            fields_mistyped: metrics.counter(
                "fields_mistyped_total",
                "Values of declared fields that had another type than declared and were stored as the default.",
            ),
            batches: metrics.counter("batches_total", "Batches applied."),
            batch_rows: metrics.histogram("batch_rows", "Rows in a batch.", ROWS),
            insert_seconds: metrics.histogram("insert_seconds", "Duration of successful inserts.", SECONDS),
            insert_errors,
            commit_errors: metrics.counter("commit_errors_total", "Commits that Kafka did not accept."),
            last_batch: metrics.gauge("last_batch_timestamp_seconds", "When the last batch was applied."),
            audit_missing: metrics
                .gauge("audit_missing", "Rows and events that the last audit found missing; alert above 0."),
            audit_duplicate: metrics
                .gauge("audit_duplicate", "Rows and events that the last audit did not expect; alert above 0."),
            audit_gaps: metrics
                .gauge("audit_gaps", "Offsets that the last audit found in no ledger row; alert above 0."),
            last_audit: metrics.gauge("last_audit_timestamp_seconds", "When the last audit ended."),
            lag: metrics.gauge_vec(
                "lag_records",
                "Records in Kafka that are missing from at least one table.",
                &["partition"],
            ),
            lag_seconds: metrics.gauge_vec(
                "lag_seconds",
                "Upper bound of the time, in seconds, that the oldest record missing from at least one table has been \
                 in Kafka; it grows while Kafka does not answer.",
                &["partition"],
            ),
            watermark: metrics.gauge(
                "watermark_timestamp_seconds",
                "Every record that Kafka had before this moment, in the partitions of this process, is in every table.",
            ),
            parts: metrics.gauge_vec(
                "parts",
                "Number of active parts in the table partition that has the most; ClickHouse delays inserts from about \
                 1000 on.",
                &["table"],
            ),
            cells_skipped: metrics.counter("cells_skipped_total", "Cells that this process skipped because an earlier owner had inserted them."),
            recovered_intents: metrics
                .counter("recovered_intents_total", "Batches that an earlier owner declared and this process rebuilt."),
            records_off_clock: metrics.counter(
                "records_off_clock_total",
                "Records whose Kafka time is more than an hour ahead of this machine, or more than an hour before the \
                 previous record.",
            ),
            joins: metrics.counter("joins_total", "How often this process joined the consumer group."),
            orphans: metrics.counter("orphans_total", "Partitions found without an owner in the group."),
            partitions_owned: metrics.gauge("partitions_owned", "Partitions that have a pipeline in this process."),
            partitions_stopped: metrics.gauge("partitions_stopped", "Partitions that are stopped until an operator acts."),
            parts_lost: metrics.counter(
                "parts_lost_total",
                "Parts that ClickHouse acknowledged and does not have; alert above 0.",
            ),
            inserts_held: metrics.gauge(
                "inserts_held",
                "1 while nothing is inserted because a check of the tables found a problem; alert above 0.",
            ),
            descriptions: metrics.descriptions(),
            registry: metrics.registry(),
        }
    }
}

impl Metrics {
    /// Counts a batch that was applied at the time `unix_seconds`.
    pub fn applied(&self, counts: &Counts, unix_seconds: i64) {
        self.records.inc_by(counts.records);
        self.lines.inc_by(counts.lines);
        self.rows.inc_by(counts.rows);
        self.rejected.inc_by(counts.rejected);
        self.duplicates.inc_by(counts.duplicates);
        self.time_replaced.inc_by(counts.time_replaced);
        self.arrival_replaced.inc_by(counts.arrival_replaced);
        self.rows_folded.inc_by(counts.folded_rows);
        self.fields_mistyped.inc_by(counts.mistyped);
        self.batches.inc();
        self.batch_rows.observe(counts.rows as f64);
        self.last_batch.set(unix_seconds);
    }

    /// Counts the `records` of a closed batch that have more or fewer lines than their header says. If the batch is
    /// rebuilt, these records are counted again.
    pub fn miscounted(&self, records: u64) {
        self.records_miscounted.inc_by(records);
    }

    /// Sets the findings of the last audit, and when it ended. `gaps` is the number of offsets in no ledger row.
    pub fn audited(&self, missing: u64, duplicate: u64, gaps: u64, unix_seconds: i64) {
        self.audit_missing.set(missing.cast_signed());
        self.audit_duplicate.set(duplicate.cast_signed());
        self.audit_gaps.set(gaps.cast_signed());
        self.last_audit.set(unix_seconds);
    }

    /// Resets the results of the audit, because another process runs the audits now.
    pub fn audits_elsewhere(&self) {
        self.audit_missing.set(0);
        self.audit_duplicate.set(0);
        self.audit_gaps.set(0);
    }

    /// Records the duration of an insert that succeeded.
    pub fn inserted(&self, took: Duration) {
        self.insert_seconds.observe(took.as_secs_f64());
    }

    /// Counts an insert that failed.
    pub fn insert_failed(&self, kind: InsertError) {
        self.insert_errors.with_label_values(&[kind.as_str()]).inc();
    }

    /// Counts a partition as stopped until the guard is dropped.
    pub fn partition_stopped(&self) -> StoppedGuard {
        self.partitions_stopped.inc();
        StoppedGuard(self.partitions_stopped.clone())
    }

    /// Counts a commit that Kafka did not accept.
    pub fn commit_failed(&self) {
        self.commit_errors.inc();
    }

    /// Sets how many records of a partition are missing from at least one table.
    pub fn lag(&self, partition: i32, records: i64) {
        self.lag.with_label_values(&[&partition.to_string()]).set(records);
    }

    /// Sets the lag of a partition in seconds: an upper bound of the time since Kafka appended the oldest record that
    /// is missing from at least one table.
    pub fn lag_seconds(&self, partition: i32, seconds: i64) {
        self.lag_seconds.with_label_values(&[&partition.to_string()]).set(seconds);
    }

    /// Sets the watermark, in seconds since 1970: every record that was in Kafka before this moment, in the partitions
    /// of this process, is in every table.
    pub fn watermark(&self, seconds: i64) {
        self.watermark.set(seconds);
    }

    /// Sets the number of parts of `table`, counted in the table partition that has the most.
    pub fn parts(&self, table: &str, parts: u64) {
        self.parts.with_label_values(&[table]).set(i64::try_from(parts).unwrap_or(i64::MAX));
    }

    /// Forgets the lag of a partition that this process no longer has.
    pub fn forget(&self, partition: i32) {
        // The removal fails if the lag was never set. This error is ignored, because there is then nothing to remove.
        for lag in [&self.lag, &self.lag_seconds] {
            let _absent = lag.remove_label_values(&[&partition.to_string()]);
        }
    }

    /// The totals since the start: the number of batches, and their counts.
    pub fn counts(&self) -> (u64, Counts) {
        let counts = Counts {
            records: self.records.get(),
            lines: self.lines.get(),
            rows: self.rows.get(),
            rejected: self.rejected.get(),
            duplicates: self.duplicates.get(),
            time_replaced: self.time_replaced.get(),
            arrival_replaced: self.arrival_replaced.get(),
            folded_rows: self.rows_folded.get(),
            mistyped: self.fields_mistyped.get(),
        };
        (self.batches.get(), counts)
    }
}

const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const ROWS: &[f64] = &[10.0, 100.0, 1e3, 1e4, 1e5, 2.5e5, 5e5];
