//! Reads the ledger and the raw table by spans of offsets.

use std::collections::BTreeMap;

use schemas::time::UnixMillis;

use super::sql::{created_at, in_spans, may_be_dropped, of_ledger, of_raw, start_of};
use super::{EVENTS, Key, LEDGER, Reader, SPAN};
use crate::apply::store::StoreError;
use crate::ops::audit::frame::{Frame, MAX_ID_DELAY_DAYS, day};
use crate::ops::audit::gaps::Gap;
use crate::ops::audit::judge::MAX_FINDINGS;

/// The records of a span in the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerSpan {
    /// Number of records.
    pub records: u64,
    /// Number of ledger rows that repeat a record which already has a row.
    pub repeated: u64,
    /// By how many lines `stored` is below `lines - rejected - duplicates`.
    pub short: u64,
    /// By how many lines `stored` is above `lines - rejected - duplicates`.
    pub over: u64,
    /// Number of stored lines.
    pub rows: u64,
    /// Sum, over the stored lines, of the hash of (offset, line number).
    pub digest: u64,
    /// Offset of the first record.
    pub first: u64,
    /// Offset of the last record.
    pub last: u64,
}

/// The rows of a span in the raw table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RawSpan {
    /// Number of rows.
    pub rows: u64,
    /// Sum, over the rows, of the hash of (offset, line number).
    pub digest: u64,
}

/// When the lines of a span arrived, as far as the ids of the span's records show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanArrivals {
    /// No line arrived before this day (days since 1970).
    pub since: i64,
    /// Number of stored lines that arrived so long ago that ClickHouse may have dropped their raw rows.
    pub may_be_dropped: u64,
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

impl Reader<'_> {
    /// Reads the part of the ledger that is compared, summed up for each span.
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

    /// Reads the compared raw rows that arrived on the day [`Frame::raw_from`] or later, summed up for each span.
    pub async fn raw(&self, frame: &Frame) -> Result<BTreeMap<Key, RawSpan>, StoreError> {
        self.raw_spans(&of_raw(frame, frame.raw_from())).await
    }

    /// Reads the raw rows of these spans that arrived on the day `since` or later, and before the days that
    /// [`raw`](Self::raw) reads, summed up for each span. If there are too many spans to list in a query, the result
    /// has all spans with such rows.
    pub async fn earlier_raw(
        &self,
        frame: &Frame,
        spans: &[Key],
        since: i64,
    ) -> Result<BTreeMap<Key, RawSpan>, StoreError> {
        let Some(from) = frame.raw_from().filter(|from| since < *from) else { return Ok(BTreeMap::new()) };
        let condition = format!("{} AND server_time < {}", of_raw(frame, Some(since)), start_of(from));
        self.raw_spans(&format!("{condition} AND {}", in_spans(spans))).await
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

    /// When the lines of these spans arrived, as far as the ids of the spans' records show. If there are too many spans
    /// to list in a query, the result has all spans.
    pub async fn arrivals(
        &self,
        frame: &Frame,
        spans: &[Key],
    ) -> Result<BTreeMap<Key, SpanArrivals>, StoreError> {
        if spans.is_empty() {
            return Ok(BTreeMap::new());
        }
        let sql = format!(
            "SELECT g, kp, intDiv(ko, {SPAN}) AS span, min({}), \
             toUInt64(sumIf(stored, {})) FROM {LEDGER} \
             WHERE {} AND stored > 0 AND {} GROUP BY g, kp, span",
            created_at(),
            may_be_dropped(frame),
            of_ledger(frame),
            in_spans(spans)
        );
        let rows: Vec<(u16, u16, u64, i64, u64)> = self.rows(&sql).await?;
        let of_span = |(log_generation, partition, span, created_at, may_be_dropped)| {
            (
                (log_generation, partition, span),
                SpanArrivals { since: day(UnixMillis(created_at)) - MAX_ID_DELAY_DAYS, may_be_dropped },
            )
        };
        Ok(rows.into_iter().map(of_span).collect())
    }

    /// Whether the ledger has a record with lines whose raw rows may have been dropped. Returns `false` without a query
    /// if [`Frame::whole_from`] is set, because `whole_from` already leaves out the days whose raw rows may have been
    /// dropped.
    pub async fn may_lack_raw_rows(&self, frame: &Frame) -> Result<bool, StoreError> {
        if frame.whole_from.is_some() {
            return Ok(false);
        }
        let dropped = may_be_dropped(frame);
        let sql = format!("SELECT count() FROM {LEDGER} WHERE tenant = '*' AND stored > 0 AND {dropped}");
        Ok(self.rows::<u64>(&sql).await? != [0])
    }

    /// For each of these spans, the numbers of missing and duplicate raw rows, counted record by record. No line of the
    /// spans arrived before the day `since`. Rows that ClickHouse may have dropped do not count as missing.
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
        let in_spans = in_spans(spans);
        let sql = format!(
            "SELECT g, kp, intDiv(ko, {SPAN}) AS span, toUInt64(sumIf(must - good, NOT gone)), \
             toUInt64(sum(rows - good)) FROM (\
             SELECT g, kp, ko, max(s) AS must, sum(raw) AS rows, max(dropped) AS gone, \
             arrayCount(l -> l < must, groupUniqArrayIf(at, raw = 1)) AS good FROM (\
             SELECT g, kp, ko, toUInt32(line) AS at, toUInt32(0) AS s, toUInt8(1) AS raw, toUInt8(0) AS dropped \
             FROM {EVENTS} WHERE {} AND {in_spans} \
             UNION ALL SELECT g, kp, ko, toUInt32(0), stored, toUInt8(0), {} \
             FROM {LEDGER} WHERE {} AND {in_spans}\
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

    /// The gaps between records within these spans: the first [`MAX_FINDINGS`] of all spans together.
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
            in_spans(spans)
        );
        let rows: Vec<(u16, u16, u64, u64)> = self.rows(&sql).await?;
        Ok(rows
            .into_iter()
            .map(|(log_generation, partition, first, last)| Gap { log_generation, partition, first, last })
            .collect())
    }
}
