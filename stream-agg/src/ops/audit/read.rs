//! The queries of an audit. Each one is limited in time, memory and threads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use schemas::rollup::{Dimension, PropPath, Rollup, Rollups};
use schemas::row::TimeLimits;
use schemas::time::{DAY, UnixMillis};

use super::frame::{Frame, GATHERED, Held, Log, day};
use super::gaps::Gap;
use super::judge::{MAX_FINDINGS, Snapshot, SnapshotRow};
use crate::apply::store::{Store, StoreError};
use crate::protocol::declaration::{Declaration, known};
use crate::protocol::limits::LONGEST_WAY_DAYS;

/// The raw table.
pub const EVENTS: &str = "events";
/// The ledger.
pub const LEDGER: &str = "ledger";
/// Number of offsets that are compared in one sum.
pub const SPAN: u64 = 10_000;
/// Most spans that are listed in a query; if there are more, all spans are read.
const MAX_NAMED: usize = 1000;

/// A span: [`SPAN`] offsets of a log.
pub type Key = (u16, u16, u64);

/// What the ledger holds of a span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerSpan {
    /// Records.
    pub records: u64,
    /// Rows beyond one per record.
    pub repeated: u64,
    /// By how many lines `stored` is below `lines - rejected - duplicates`.
    pub short: u64,
    /// By how many lines `stored` is above it.
    pub over: u64,
    /// Stored lines.
    pub rows: u64,
    /// Sum of the hashes of their offsets and line numbers.
    pub digest: u64,
    /// Offset of the first record.
    pub first: u64,
    /// Offset of the last record.
    pub last: u64,
}

/// What the raw table holds of a span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RawSpan {
    /// Rows.
    pub rows: u64,
    /// Sum of the hashes of their offsets and line numbers.
    pub digest: u64,
}

/// What the ids of the records of a span tell about their lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// No line arrived before this day.
    pub since: i64,
    /// Stored lines that arrived so long ago that ClickHouse may have dropped their raw rows.
    pub dropped: u64,
}

/// A [`LedgerSpan`] with its key.
#[derive(clickhouse::Row, serde::Deserialize)]
struct LedgerRow {
    #[serde(rename = "g")]
    log_generation: u16,
    #[serde(rename = "kp")]
    partition: u16,
    span: u64,
    records: u64,
    repeated: u64,
    short: u64,
    over: u64,
    rows: u64,
    digest: u64,
    first: u64,
    last: u64,
}

impl LedgerRow {
    fn keyed(self) -> (Key, LedgerSpan) {
        let Self {
            log_generation,
            partition,
            span,
            records,
            repeated,
            short,
            over,
            rows,
            digest,
            first,
            last,
        } = self;
        (
            (log_generation, partition, span),
            LedgerSpan { records, repeated, short, over, rows, digest, first, last },
        )
    }
}

/// Which declarations contain a rollup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The hashes of the declarations.
    pub declaration_hashes: Vec<u64>,
    /// Whether the first declaration already contained the rollup.
    pub always: bool,
}

/// Reads what an audit compares.
pub struct Reader<'s> {
    /// The database.
    pub store: &'s Store,
    /// Timeout of one query.
    pub patience: Duration,
}

impl Reader<'_> {
    async fn rows<T>(&self, sql: &str) -> Result<Vec<T>, StoreError>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        let seconds = self.patience.as_secs();
        let sql = format!(
            "{sql} SETTINGS max_threads = 2, max_memory_usage = 1073741824, max_execution_time = {seconds}, \
             optimize_aggregation_in_order = 1"
        );
        self.store.rows_within(self.patience, &sql).await
    }

    /// What can be compared of the last `days` days.
    pub async fn frame(&self, days: u16, time: TimeLimits) -> Result<Frame, StoreError> {
        let progress = self.progress().await?;
        let millis = "toUnixTimestamp64Milli";
        let sql = format!(
            "SELECT {millis}(now64(3)), \
             ifNull((SELECT {millis}(min(since)) FROM configs), 0), \
             ifNull((SELECT {millis}(min(server_time)) FROM {EVENTS}), 0), \
             ifNull((SELECT {millis}(min(kafka_time)) FROM {LEDGER} WHERE tenant != '' AND stored > 0), 0)"
        );
        let rows: Vec<(i64, i64, i64, i64)> = self.rows(&sql).await?;
        let (now, since, raw, stored) = rows.first().copied().unwrap_or_default();
        let day = |millis: i64| day(UnixMillis(millis));
        let first = |millis: i64| (millis != 0).then(|| day(millis));
        let held = Held { now: UnixMillis(now), since: day(since), raw: first(raw), stored: first(stored) };
        let mut frame = Frame::new(&held, days, progress, time);
        frame.begin_at(&self.firsts(frame.from.unwrap_or(0)).await?);
        Ok(frame)
    }

    /// The first offset of each log that Kafka appended on the day `from` or later, so that all later offsets are
    /// of these days, too. The marker of an earlier day tells how far that day reaches, because Kafka's clock may
    /// have gone back.
    async fn firsts(&self, from: i64) -> Result<BTreeMap<Log, u64>, StoreError> {
        let from = start_of(from);
        let sql = format!(
            "SELECT g, kp, max(at) FROM (\
             SELECT g, kp, min(ko) AS at, 1 AS known FROM {LEDGER} \
             WHERE tenant = '*' AND kafka_time >= {from} GROUP BY g, kp \
             UNION ALL SELECT g, kp, max(hwm), 0 FROM {LEDGER} \
             WHERE tenant = '' AND kafka_time < {from} GROUP BY g, kp\
             ) GROUP BY g, kp HAVING max(known) = 1"
        );
        let rows: Vec<(u16, u16, u64)> = self.rows(&sql).await?;
        Ok(rows
            .into_iter()
            .map(|(log_generation, partition, ko)| ((log_generation, partition), ko))
            .collect())
    }

    /// Up to which offset each log is in every table.
    pub async fn progress(&self) -> Result<BTreeMap<Log, u64>, StoreError> {
        let sql = "SELECT g, kp, argMax(next_offset, (as_of, next_offset)) FROM progress GROUP BY g, kp";
        let rows: Vec<(u16, u16, u64)> = self.rows(sql).await?;
        Ok(rows
            .into_iter()
            .map(|(log_generation, partition, next)| ((log_generation, partition), next))
            .collect())
    }

    /// For each rollup, which declarations contain it unchanged.
    pub async fn declared_in(&self, rollups: &Rollups) -> Result<Vec<Known>, StoreError> {
        let rows: Vec<(u64, String)> = self.rows("SELECT DISTINCT cfg, declared FROM configs").await?;
        let all: Vec<_> = rows
            .into_iter()
            .map(|(declaration_hash, text)| (declaration_hash, known(declaration_hash, &[text]).ok()))
            .collect();
        let of_rollup = |rollup: &Rollup| {
            let contains = |declaration: &Option<Declaration>| {
                declaration.as_ref().is_some_and(|d| d.rollups.get(&rollup.name) == Some(rollup))
            };
            let declaration_hashes: Vec<_> = all
                .iter()
                .filter(|(_, d)| contains(d))
                .map(|(declaration_hash, _)| *declaration_hash)
                .collect();
            Known { always: declaration_hashes.len() == all.len(), declaration_hashes }
        };
        Ok(rollups.iter().map(of_rollup).collect())
    }

    /// The ledger by spans.
    pub async fn ledger(&self, frame: &Frame) -> Result<BTreeMap<Key, LedgerSpan>, StoreError> {
        let sql = format!(
            "SELECT g, kp, intDiv(ko, {SPAN}) AS span, count() AS records, toUInt64(sum(n - 1)) AS repeated, \
             toUInt64(sum(greatest(lack, 0))) AS short, toUInt64(sum(greatest(-lack, 0))) AS over, \
             sum(s) AS rows, sum(arraySum(l -> cityHash64(ko, toUInt32(l)), range(s))) AS digest, \
             min(ko) AS first, max(ko) AS last FROM (\
             SELECT g, kp, ko, count() AS n, toUInt64(any(stored)) AS s, \
             any(toInt64(lines) - rejected - duplicates - stored) AS lack \
             FROM {LEDGER} WHERE {} GROUP BY tenant, g, kp, ko) GROUP BY g, kp, span",
            of_ledger(frame)
        );
        let read: Vec<LedgerRow> = self.rows(&sql).await?;
        Ok(read.into_iter().map(LedgerRow::keyed).collect())
    }

    /// The raw table by spans.
    pub async fn raw(&self, frame: &Frame) -> Result<BTreeMap<Key, RawSpan>, StoreError> {
        self.raw_spans(&of_raw(frame, frame.raw_from())).await
    }

    /// The raw rows of these spans that arrived on the day `since` or later, and before the days that
    /// [`raw`](Self::raw) reads.
    pub async fn earlier_raw(
        &self,
        frame: &Frame,
        spans: &[Key],
        since: i64,
    ) -> Result<BTreeMap<Key, RawSpan>, StoreError> {
        let Some(from) = frame.raw_from().filter(|from| since < *from) else { return Ok(BTreeMap::new()) };
        let condition = format!("{} AND server_time < {}", of_raw(frame, Some(since)), start_of(from));
        self.raw_spans(&format!("{condition} AND {}", among(spans))).await
    }

    async fn raw_spans(&self, condition: &str) -> Result<BTreeMap<Key, RawSpan>, StoreError> {
        let sql = format!(
            "SELECT g, kp, intDiv(ko, {SPAN}) AS span, count(), sum(cityHash64(ko, toUInt32(line))) \
             FROM {EVENTS} WHERE {condition} GROUP BY g, kp, span"
        );
        let read: Vec<(u16, u16, u64, u64, u64)> = self.rows(&sql).await?;
        let span = |(log_generation, partition, span, rows, digest)| {
            ((log_generation, partition, span), RawSpan { rows, digest })
        };
        Ok(read.into_iter().map(span).collect())
    }

    /// What the ids of the records of these spans tell about their lines.
    pub async fn made(&self, frame: &Frame, spans: &[Key]) -> Result<BTreeMap<Key, Made>, StoreError> {
        if spans.is_empty() {
            return Ok(BTreeMap::new());
        }
        let sql = format!(
            "SELECT g, kp, intDiv(ko, {SPAN}) AS span, min({}), \
             toUInt64(sumIf(stored, {})) FROM {LEDGER} \
             WHERE {} AND stored > 0 AND {} GROUP BY g, kp, span",
            made(),
            may_be_dropped(frame),
            of_ledger(frame),
            among(spans)
        );
        let rows: Vec<(u16, u16, u64, i64, u64)> = self.rows(&sql).await?;
        let of_span = |(log_generation, partition, span, made, dropped)| {
            ((log_generation, partition, span), Made { since: day(UnixMillis(made)) - GATHERED, dropped })
        };
        Ok(rows.into_iter().map(of_span).collect())
    }

    /// Whether any record of the ledger has lines whose raw rows may have been dropped. Not queried if the frame
    /// leaves their days out anyway.
    pub async fn may_lack_raw_rows(&self, frame: &Frame) -> Result<bool, StoreError> {
        if frame.whole_from.is_some() {
            return Ok(false);
        }
        let dropped = may_be_dropped(frame);
        let sql = format!("SELECT count() FROM {LEDGER} WHERE tenant = '*' AND stored > 0 AND {dropped}");
        Ok(self.rows::<u64>(&sql).await? != [0])
    }

    /// How many raw rows are missing and how many are duplicate in these spans, record by record, if no line of
    /// them arrived before the day `since`. Rows that ClickHouse may have dropped are not missing.
    pub async fn details(
        &self,
        frame: &Frame,
        spans: &[Key],
        since: i64,
    ) -> Result<BTreeMap<Key, (u64, u64)>, StoreError> {
        if spans.is_empty() {
            return Ok(BTreeMap::new());
        }
        let since = frame.raw_from().map(|from| from.min(since));
        let among = among(spans);
        let sql = format!(
            "SELECT g, kp, intDiv(ko, {SPAN}) AS span, toUInt64(sumIf(must - good, NOT gone)), \
             toUInt64(sum(rows - good)) FROM (\
             SELECT g, kp, ko, max(s) AS must, sum(raw) AS rows, max(dropped) AS gone, \
             arrayCount(l -> l < must, groupUniqArrayIf(at, raw = 1)) AS good FROM (\
             SELECT g, kp, ko, toUInt32(line) AS at, toUInt32(0) AS s, toUInt8(1) AS raw, toUInt8(0) AS dropped \
             FROM {EVENTS} WHERE {} AND {among} \
             UNION ALL SELECT g, kp, ko, toUInt32(0), stored, toUInt8(0), {} \
             FROM {LEDGER} WHERE {} AND {among}\
             ) GROUP BY g, kp, ko) GROUP BY g, kp, span",
            of_raw(frame, since),
            may_be_dropped(frame),
            of_ledger(frame)
        );
        let rows: Vec<(u16, u16, u64, u64, u64)> = self.rows(&sql).await?;
        let wrong = |(log_generation, partition, span, missing, duplicate)| {
            ((log_generation, partition, span), (missing, duplicate))
        };
        Ok(rows.into_iter().map(wrong).collect())
    }

    /// The first gaps between the records of each of these spans.
    pub async fn gaps(&self, frame: &Frame, spans: &[Key]) -> Result<Vec<Gap>, StoreError> {
        if spans.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT g, kp, before + 1, toUInt64(ko - 1) FROM (SELECT g, kp, ko, \
             lagInFrame(ko, 1, ko) OVER (PARTITION BY g, kp, intDiv(ko, {SPAN}) ORDER BY ko \
             ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before \
             FROM {LEDGER} WHERE {} AND {}) WHERE ko > before + 1 ORDER BY g, kp, ko LIMIT {MAX_FINDINGS}",
            of_ledger(frame),
            among(spans)
        );
        let rows: Vec<(u16, u16, u64, u64)> = self.rows(&sql).await?;
        Ok(rows
            .into_iter()
            .map(|(log_generation, partition, first, last)| Gap { log_generation, partition, first, last })
            .collect())
    }

    /// The sums and the markers of a rollup, from the same parts. The markers of a backfill tell no offsets.
    pub async fn rollup(&self, rollup: &Rollup) -> Result<Vec<SnapshotRow>, StoreError> {
        let sql = format!(
            "SELECT toInt64(intDiv(toUnixTimestamp(bucket), 86400)) AS day, toUInt64(toUInt16(expires)) AS expiry, \
             tenant = '' AS marker, g, kp, sum(rows), max(hwm) FROM {} \
             WHERE (tenant != '' AND rollup = '{}') OR (tenant = '' AND rollup = '') \
             GROUP BY day, expiry, marker, g, kp",
            rollup.table().name(),
            rollup.name
        );
        type Row = (i64, u64, u8, u16, u16, u64, u64);
        let rows: Vec<Row> = self.rows(&sql).await?;
        let read = |(day, expiry, marker, log_generation, partition, sum, applied_end): Row| {
            if marker == 1 {
                SnapshotRow::Marker { expiry, log: (log_generation, partition), applied_end }
            } else {
                SnapshotRow::Sum { day, sum }
            }
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Raw rows by the day of the event. For each rollup: those below its cuts that were stored under a declaration
    /// with the rollup, and those stored under any declaration.
    pub async fn days(
        &self,
        frame: &Frame,
        snapshots: &[Snapshot<'_>],
        known: &[Known],
    ) -> Result<BTreeMap<i64, Vec<(u64, u64)>>, StoreError> {
        let mut counts = Vec::new();
        for (snapshot, known) in snapshots.iter().zip(known) {
            let rollup = snapshot.rollup;
            let expiry = format!("toUInt64({})", rollup.expires_sql("toUnixTimestamp64Milli(event_time)"));
            let cell = |(expiry, (log_generation, partition)): (u64, Log)| {
                expiry << 32 | log_number((log_generation, partition))
            };
            let cuts = snapshot.cuts.iter().map(|(at, applied_end)| (cell(*at), *applied_end));
            let cut = lookup(&format!("bitShiftLeft({expiry}, 32) + log"), cuts, 0);
            let counted = format!("(ko < bound OR ko < {cut}) AND {}", condition(rollup));
            let stored = if known.always {
                counted.clone()
            } else {
                let declaration_hashes: Vec<_> =
                    known.declaration_hashes.iter().map(u64::to_string).collect();
                format!("{counted} AND has(CAST([{}], 'Array(UInt64)'), cfg)", declaration_hashes.join(", "))
            };
            counts.push(format!("(countIf({stored}), countIf({counted}))"));
        }
        if counts.is_empty() {
            return Ok(BTreeMap::new());
        }
        let sql = format!(
            "WITH {LOG} AS log, {bound} AS bound, \
             toUnixTimestamp64Milli(client_time) AS sent, toUnixTimestamp64Milli(server_time) AS arrived, \
             if(sent >= {earliest} AND sent <= arrived + {ahead}, client_time, server_time) AS event_time \
             SELECT intDiv(toUnixTimestamp64Milli(event_time), {DAY}) AS day, [{counts}] AS counts FROM {EVENTS} \
             WHERE tenant != '' AND server_time >= {from} GROUP BY day",
            bound = lookup("log", numbered(&frame.progress), 0),
            earliest = frame.time.earliest.0,
            ahead = frame.time.ahead,
            counts = counts.join(", "),
            from = start_of(frame.raw_from().unwrap_or(0)),
        );
        // One row for each day and rollup, because the client cannot read arrays of pairs.
        let sql = format!(
            "SELECT day, pair.1, pair.2 FROM ({sql}) ARRAY JOIN counts AS pair, \
             arrayEnumerate(counts) AS at ORDER BY day, at"
        );
        let rows: Vec<(i64, u64, u64)> = self.rows(&sql).await?;
        let mut days = BTreeMap::<_, Vec<_>>::new();
        for (day, declared, any) in rows {
            days.entry(day).or_default().push((declared, any));
        }
        Ok(days)
    }
}

/// The number of the log of a row, as SQL.
const LOG: &str = "(toUInt64(g) * 65536 + kp)";

fn log_number((log_generation, partition): Log) -> u64 {
    u64::from(log_generation) << 16 | u64::from(partition)
}

fn numbered(offsets: &BTreeMap<Log, u64>) -> impl Iterator<Item = (u64, u64)> {
    offsets.iter().map(|(log, offset)| (log_number(*log), *offset))
}

/// An SQL expression that looks up the value of `key`.
fn lookup(key: &str, entries: impl Iterator<Item = (u64, u64)>, otherwise: u64) -> String {
    // ClickHouse refuses an empty list; no key is as high as this one.
    let (mut keys, mut values) = (u64::MAX.to_string(), otherwise.to_string());
    for (key, value) in entries {
        // Writing to a String cannot fail.
        let _ = write!(keys, ", {key}");
        let _ = write!(values, ", {value}");
    }
    let list = |of: &str| format!("CAST([{of}], 'Array(UInt64)')");
    format!("transform({key}, {}, {}, toUInt64({otherwise}))", list(&keys), list(&values))
}

/// Midnight of a day since 1970.
fn start_of(day: i64) -> String {
    format!("fromUnixTimestamp64Milli(toInt64({}), 'UTC')", day * DAY)
}

fn within(frame: &Frame) -> String {
    let floor = lookup(LOG, numbered(&frame.floors), u64::MAX);
    let bound = lookup(LOG, numbered(&frame.progress), 0);
    format!("ko >= {floor} AND ko < {bound}")
}

fn of_ledger(frame: &Frame) -> String {
    // The offset decides; the time only spares table partitions, because every earlier row is below the floor.
    format!("tenant = '*' AND kafka_time >= {} AND {}", start_of(frame.from.unwrap_or(0)), within(frame))
}

fn of_raw(frame: &Frame, from: Option<i64>) -> String {
    format!("tenant != '' AND server_time >= {} AND {}", start_of(from.unwrap_or(0)), within(frame))
}

/// As SQL for the ledger: when the record got its id, in milliseconds. An id that is no UUIDv7 tells nothing, nor
/// does a clock that is ahead of Kafka's or so far behind that decoding uses Kafka's time.
fn made() -> String {
    let (id, kafka) =
        ("toUnixTimestamp64Milli(UUIDv7ToDateTime(record_id))", "toUnixTimestamp64Milli(kafka_time)");
    format!("if({id} < {kafka} - {longest}, {kafka}, least({id}, {kafka}))", longest = LONGEST_WAY_DAYS * DAY)
}

/// As SQL for the ledger: whether a line of the record may have arrived on a day that ClickHouse has dropped.
fn may_be_dropped(frame: &Frame) -> String {
    format!("{} < {}", made(), (frame.kept_from() + GATHERED) * DAY)
}

/// Restricts a query to these spans, if they are few enough to list.
fn among(spans: &[Key]) -> String {
    if spans.len() > MAX_NAMED {
        return "1".to_owned();
    }
    let list: Vec<_> = spans
        .iter()
        .map(|(log_generation, partition, span)| format!("({log_generation}, {partition}, {span})"))
        .collect();
    format!("(g, kp, intDiv(ko, {SPAN})) IN ({})", list.join(", "))
}

/// As SQL: which raw rows a rollup counts.
fn condition(rollup: &Rollup) -> String {
    let quoted = |text: &String| format!("'{}'", escaped(text));
    let mut sql = "1".to_owned();
    for condition in &rollup.conditions {
        let field = match &condition.field {
            Dimension::Column(column) => column.name().to_owned(),
            Dimension::Prop(path) => prop(path),
        };
        let values: Vec<_> = condition.values.iter().map(quoted).collect();
        // Writing to a String cannot fail.
        let _ = write!(sql, " AND {field} IN ({})", values.join(", "));
    }
    sql
}

/// As SQL: the text at a path of `props`, as [`crate::rows::decode::props::scalar`] finds it, except for numbers,
/// which ClickHouse writes in its own way.
fn prop(path: &PropPath) -> String {
    let texts = nestings(path.steps()).into_iter().map(|names| {
        let names: Vec<_> = names.iter().map(|name| format!("'{}'", escaped(name))).collect();
        let at = format!("props, {}", names.join(", "));
        format!(
            "JSONType({at}) = 'String', JSONExtractString({at}), \
             JSONType({at}) IN ('Bool', 'Int64', 'UInt64', 'Double'), JSONExtractRaw({at})"
        )
    });
    format!("multiIf({}, '')", texts.collect::<Vec<_>>().join(", "))
}

/// All ways to join the steps of a path by dots into names of nested fields, the longest names first.
fn nestings(steps: &[String]) -> Vec<Vec<String>> {
    if steps.is_empty() {
        return vec![Vec::new()];
    }
    let named = |length: usize| {
        let name = steps[..length].join(".");
        let rest = nestings(&steps[length..]).into_iter();
        rest.map(move |rest| [vec![name.clone()], rest].concat())
    };
    (1..=steps.len()).rev().flat_map(named).collect()
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_looked_up_by_its_longest_names_first() {
        let steps: Vec<_> = ["a", "b", "c"].map(str::to_owned).into();
        let ways: Vec<_> = nestings(&steps).iter().map(|names| names.join("/")).collect();
        assert_eq!(ways, ["a.b.c", "a.b/c", "a/b.c", "a/b/c"]);
    }

    #[test]
    fn spans_are_named_as_long_as_the_query_stays_short() {
        assert_eq!(among(&[(0, 3, 7), (1, 2, 0)]), "(g, kp, intDiv(ko, 10000)) IN ((0, 3, 7), (1, 2, 0))");
        // ClickHouse accepts queries of up to 256 KiB.
        assert!(among(&vec![(u16::MAX, u16::MAX, u64::MAX / SPAN); MAX_NAMED]).len() < 64 << 10);
        assert_eq!(among(&vec![(0, 0, 0); MAX_NAMED + 1]), "1");
    }
}
