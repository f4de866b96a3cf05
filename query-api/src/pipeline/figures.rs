//! The figures of `/v1/pipeline`: the statement that reads them, and the JSON of the answer. Pure.

use clickhouse::Row;
use schemas::time::{DAY, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::query::sql::Statement;
use crate::rendered::{Rendered, etag, rfc3339};

/// Maximum run time of the statement, in seconds. The statement may need seconds, because it reads the ledger rows of
/// all records of a day in one thread.
pub(super) const MAX_SECONDS: u64 = 5;
/// Maximum memory that ClickHouse may use for the statement, in bytes.
const MAX_MEMORY_BYTES: u64 = 256 << 20;

/// The statement, which returns one row. The condition `tenant != ''` excludes marker rows. All rows of one audit are
/// inserted together and have the same `audited_at`, so the rows with the latest `audited_at` are one whole audit.
/// `as_of` is 0 until the aggregator has reported the progress of every partition of the topic. In the table
/// `progress`, `g` is the generation of the log, and `kp` is the Kafka partition. Only rows of the latest generation
/// are read.
const TEXT: &str = "SELECT toUnixTimestamp64Milli(now64(3)) AS read_at, P.until AS as_of, P.slowest AS slowest_partition, \
P.partitions AS partitions, L.lines AS lines, L.stored AS stored, L.rejected AS rejected, L.duplicates AS duplicates, \
D.samples AS rejected_samples, A.at AS audited_at, A.tables AS audited_tables, A.partly AS partly_audited, \
A.missing AS missing, A.duplicate AS duplicate, A.gaps AS gaps
FROM (SELECT if(count() >= max(topic), toUnixTimestamp64Milli(min(reached)), 0) AS until, argMin(kp, reached) AS slowest, max(topic) AS partitions
      FROM (SELECT kp, max(partitions) AS topic, max(as_of) AS reached FROM progress WHERE g = (SELECT max(g) FROM progress) GROUP BY kp)) AS P
CROSS JOIN (SELECT sum(ledger.lines) AS lines, sum(ledger.stored) AS stored, sum(ledger.rejected) AS rejected, sum(ledger.duplicates) AS duplicates
      FROM ledger WHERE tenant != '' AND kafka_time >= now64(3) - INTERVAL 1 DAY) AS L
CROSS JOIN (SELECT count() AS samples
      FROM dead_letters WHERE tenant != '' AND startsWith(reason, 'edge:') AND kafka_time >= now64(3) - INTERVAL 1 DAY) AS D
CROSS JOIN (SELECT toUnixTimestamp64Milli(max(audited_at)) AS at, countIf(part = 'all') AS tables, countIf(part = 'all' AND note != '') AS partly,
             sumIf(audits.missing, part = 'all') AS missing, sumIf(audits.duplicate, part = 'all') AS duplicate,
             toUInt64(sumIf(expected - found, table = 'ledger' AND part = 'offsets')) AS gaps
      FROM audits WHERE audited_at = (SELECT max(audited_at) FROM audits)) AS A";

pub(super) fn statement() -> Statement {
    let settings = vec![
        ("max_execution_time", MAX_SECONDS.to_string()),
        ("max_threads", "1".to_owned()),
        ("max_memory_usage", MAX_MEMORY_BYTES.to_string()),
        ("cancel_http_readonly_queries_on_client_close", "1".to_owned()),
    ];
    Statement { text: TEXT.to_owned(), settings, ..Statement::default() }
}

/// The row of the statement.
#[derive(Debug, Clone, Default, Row, Deserialize)]
pub(super) struct FiguresRow {
    read_at: i64,
    as_of: i64,
    slowest_partition: u16,
    partitions: u16,
    lines: u64,
    stored: u64,
    rejected: u64,
    duplicates: u64,
    rejected_samples: u64,
    audited_at: i64,
    audited_tables: u64,
    partly_audited: u64,
    missing: u64,
    duplicate: u64,
    gaps: u64,
}

/// The state of the pipeline.
#[derive(Debug)]
pub(super) struct Figures {
    /// Everything that was in Kafka before this moment is counted; `None` until the aggregator has reported the
    /// progress of every partition.
    pub(super) as_of: Option<UnixMillis>,
    read_at: UnixMillis,
    data: Data,
}

/// The fields of `data`, in the order in which they are sent.
#[derive(Debug, Serialize)]
struct Data {
    lines: Lines,
    partitions: Partitions,
    /// Null before the first audit.
    audit: Option<Audit>,
}

/// Numbers of lines by outcome, for the records of the last 24 hours: received = stored + rejected + duplicates.
#[derive(Debug, Serialize)]
struct Lines {
    received: u64,
    stored: u64,
    rejected: u64,
    duplicates: u64,
    /// Number of samples of lines that the edge rejected. Each edge process keeps at most ten samples a second. The
    /// other figures do not include these lines.
    rejected_samples: u64,
}

#[derive(Debug, Serialize)]
struct Partitions {
    count: u16,
    /// The Kafka partition whose progress determines `as_of`; null until the aggregator has reported the progress of
    /// every partition.
    slowest: Option<u16>,
}

/// The latest audit.
#[derive(Debug, Serialize)]
struct Audit {
    at: String,
    sound: bool,
    tables: u64,
    /// Number of tables that could be compared only in part; the table `audits` says why.
    partly_compared: u64,
    missing: u64,
    duplicate: u64,
    /// Number of Kafka offsets without a row in the ledger.
    offsets_in_gaps: u64,
}

impl From<FiguresRow> for Figures {
    fn from(row: FiguresRow) -> Self {
        let as_of = Some(UnixMillis(row.as_of)).filter(|as_of| as_of.0 > 0);
        let audit = Audit {
            at: rfc3339(UnixMillis(row.audited_at)),
            sound: row.missing == 0 && row.duplicate == 0 && row.gaps == 0,
            tables: row.audited_tables,
            partly_compared: row.partly_audited,
            missing: row.missing,
            duplicate: row.duplicate,
            offsets_in_gaps: row.gaps,
        };
        let data = Data {
            lines: Lines {
                received: row.lines,
                stored: row.stored,
                rejected: row.rejected,
                duplicates: row.duplicates,
                rejected_samples: row.rejected_samples,
            },
            partitions: Partitions { count: row.partitions, slowest: as_of.map(|_| row.slowest_partition) },
            // If the table `audits` has no rows, `audited_at` is 0.
            audit: (row.audited_at > 0).then_some(audit),
        };
        Self { as_of, read_at: UnixMillis(row.read_at), data }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    data: &'a Data,
    meta: Meta,
}

#[derive(Serialize)]
struct Meta {
    as_of: Option<String>,
    stale: bool,
    window: Window,
}

/// The time range of `lines`, which counts the lines of records that Kafka appended in this range.
#[derive(Serialize)]
struct Window {
    from: String,
    to: String,
    tz: &'static str,
}

impl Figures {
    /// The answer as JSON. Its ETag depends only on `data` and `stale`, so it does not change while only `as_of` and
    /// the window advance.
    pub(super) fn render(&self, stale: bool) -> Rendered {
        const NUMBERS_AND_TEXTS: &str = "numbers and texts become JSON";
        let data = serde_json::to_vec(&self.data).expect(NUMBERS_AND_TEXTS);
        let window =
            Window { from: rfc3339(UnixMillis(self.read_at.0 - DAY)), to: rfc3339(self.read_at), tz: "UTC" };
        let meta = Meta { as_of: self.as_of.map(rfc3339), stale, window };
        let body = serde_json::to_vec(&Body { data: &self.data, meta }).expect(NUMBERS_AND_TEXTS);
        Rendered::new("application/json", body, &etag(&[&data, &[u8::from(stale)]]))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Figures that were read at 2026-11-29 08:00:03, with an `as_of` of 08:00:01.
    fn row() -> FiguresRow {
        let at = |text| UnixMillis::parse(text).unwrap().0;
        FiguresRow {
            read_at: at("2026-11-29 08:00:03"),
            as_of: at("2026-11-29 08:00:01"),
            slowest_partition: 3,
            partitions: 8,
            lines: 12,
            stored: 9,
            rejected: 1,
            duplicates: 2,
            rejected_samples: 4,
            audited_at: at("2026-11-29 07:55:00"),
            audited_tables: 14,
            ..FiguresRow::default()
        }
    }

    fn body(row: FiguresRow) -> Value {
        serde_json::from_slice(&Figures::from(row).render(false).body).unwrap()
    }

    #[test]
    fn figures_say_what_became_of_every_line_of_the_last_24_hours() {
        let body = body(row());
        assert_eq!(
            body["data"]["lines"],
            json!({"received": 12, "stored": 9, "rejected": 1, "duplicates": 2, "rejected_samples": 4})
        );
        assert_eq!(body["data"]["partitions"], json!({"count": 8, "slowest": 3}));
        assert_eq!(
            body["meta"],
            json!({
                "as_of": "2026-11-29T08:00:01.000Z", "stale": false,
                "window": {"from": "2026-11-28T08:00:03.000Z", "to": "2026-11-29T08:00:03.000Z", "tz": "UTC"},
            })
        );
    }

    #[test]
    fn an_audit_is_sound_only_if_nothing_is_missing_or_duplicate() {
        let audit = |row| body(row)["data"]["audit"].clone();
        assert_eq!(
            audit(row()),
            json!({
                "at": "2026-11-29T07:55:00.000Z", "sound": true, "tables": 14, "partly_compared": 0,
                "missing": 0, "duplicate": 0, "offsets_in_gaps": 0,
            })
        );
        for wrong in [
            FiguresRow { missing: 1, ..row() },
            FiguresRow { duplicate: 1, ..row() },
            FiguresRow { gaps: 1, ..row() },
        ] {
            assert_eq!(audit(wrong)["sound"], false);
        }
    }

    #[test]
    fn unknown_figures_are_null() {
        let body = body(FiguresRow { as_of: 0, audited_at: 0, ..row() });
        assert_eq!(body["data"]["audit"], Value::Null);
        assert_eq!(body["data"]["partitions"]["slowest"], Value::Null);
        assert_eq!(body["meta"]["as_of"], Value::Null);
    }

    #[test]
    fn equal_figures_have_equal_etags_whenever_they_were_read() {
        let tag = |row: FiguresRow, stale| Figures::from(row).render(stale).etag;
        let later = FiguresRow { read_at: row().read_at + 3_000, as_of: row().as_of + 3_000, ..row() };
        assert_eq!(tag(row(), false), tag(later, false));
        assert_ne!(tag(row(), false), tag(row(), true));
        assert_ne!(tag(row(), false), tag(FiguresRow { stored: 10, ..row() }, false));
    }
}
