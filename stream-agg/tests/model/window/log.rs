//! Records of the log, the rows that the records become, and the deduplication window of the records.

use std::sync::LazyLock;

use schemas::line::Prefix;
use schemas::record::{Head, Kind};
use schemas::time::UnixMillis;
use schemas::{event, line};
use stream_agg::protocol::limits::DecodeLimits;
use stream_agg::protocol::progress::Offset;
use stream_agg::protocol::window::{Window, WindowLimits, line_id};
use stream_agg::rows::decode::{DecodedLines, Record, decode};
use uuid::Uuid;

/// A record as Kafka has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Logged {
    /// The number of the event in the record. Several records may contain the same event, as repeats.
    pub(super) event: usize,
    /// The id of the record. This is its own offset. If the record is a copy that a spool sent again, it is the offset
    /// of the earlier record, because both have the same id.
    pub(super) record: usize,
    pub(super) time: UnixMillis,
}

/// The next record to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    pub(super) offset: Offset,
    /// Whether the record comes from a spool and is already in the open batch, or in the ledger below the open batch.
    pub(super) known: bool,
}

/// The row that a record became.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) offset: Offset,
    /// Whether the event of the record is stored, because it was not recognized as a repeat.
    pub(super) stored: bool,
}

/// The expected result: whether the event of each record is stored. The event is stored if the record was not sent
/// again from a spool, and if the event was not stored for an earlier record that is in the window. An earlier record
/// is in the window if it is at most `limits.age_ms` older than the new record, and if it and the records between the
/// two have at most `limits.max_ids` ids: one id for each record, and one for each stored event.
pub(super) fn stored(log: &[Logged], limits: &WindowLimits) -> Vec<bool> {
    let mut stored = Vec::new();
    for (at, Logged { event, record, time }) in log.iter().enumerate() {
        let mut ids = 0;
        let remembers = |before: &usize| {
            ids += 1 + usize::from(stored[*before]);
            ids <= limits.max_ids && log[*before].time.0 >= time.0 - limits.age_ms
        };
        let remembered: Vec<_> = (0..at).rev().take_while(remembers).collect();
        let same = |before: &usize| stored[*before] && log[*before].event == *event;
        stored.push(*record == at && !remembered.iter().any(same));
    }
    stored
}

/// Adds the next record to `window`, and returns the row that the record becomes.
pub(super) fn remember(window: &mut Window, log: &[Logged], next: Next, limits: &WindowLimits) -> Row {
    let Next { offset, known } = next;
    let Logged { event, record, time } = log[index(offset)];
    let spooled = record != index(offset);
    let head = Head { lines: 1, id: record_id(record), spooled, kind: Kind::Events, trace: None };
    let record =
        Record { offset, kafka_time: time, head: &Ok(head), known, skipped: false, value: &LINES[event] };
    let limits = DecodeLimits { window: *limits, ..DecodeLimits::default() };
    let entry = decode(&record, &limits, window, &mut DecodedLines::default()).unwrap();
    Row { offset, stored: entry.stored == 1 }
}

/// A window that contains the records of `rows`.
pub(super) fn restored(rows: &[Row], log: &[Logged]) -> Window {
    let mut window = Window::new();
    for Row { offset, stored } in rows {
        let Logged { event, record, time } = log[index(*offset)];
        let ids = stored.then(|| line_id(TENANT, event_id(event)));
        window.append(*offset, time, record_id(record), ids.as_slice());
    }
    window
}

const TENANT: &str = "default";

/// A line of each event.
static LINES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| (0..8).map(line).collect());

fn line(event: usize) -> Vec<u8> {
    let sent = format!(r#"{{"event":"a","event_id":"{}"}}"#, event_id(event));
    let prefix = Prefix::new(TENANT, "203.0.113.7".parse().unwrap(), UnixMillis(0));
    let mut out = Vec::new();
    line::write(&prefix, &sent, &event::parse::<()>(&sent).unwrap(), &mut out);
    out
}

fn event_id(event: usize) -> Uuid {
    Uuid::from_u128(1 + event as u128)
}

fn record_id(record: usize) -> Uuid {
    Uuid::from_u128(0xff00 + record as u128)
}

pub(super) fn index(offset: Offset) -> usize {
    offset.to_u64() as usize
}
