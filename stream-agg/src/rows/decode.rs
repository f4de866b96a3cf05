//! Decodes a record into rows and a row of the ledger.
//!
//! Pure: the same [`Record`] with the same deduplication window and the same limits always gives the same rows. A line
//! that cannot be read becomes a dead letter and does not affect other lines. A line that repeats a stored line is
//! counted but not stored. A record in an unknown format is an error, because its events were acknowledged and a later
//! release can read them; its lines become dead letters only if an operator skips the record. Samples of lines that the
//! edge rejected are stored in the table `dead_letters` and are not counted as lines in the ledger, because the edge
//! never accepted these lines. If a record has more or fewer lines than its header `n` says, its lines are decoded all
//! the same, and the record is reported, because lines may be lost.

pub mod props;

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use hashbrown::HashSet;
use schemas::line::{Enriched, ReadError, Reader};
use schemas::record::{self, Head, HeadError, Kind};
use schemas::row::STORABLE;
use schemas::time::{DAY, UnixMillis};
use uuid::Uuid;

use crate::protocol::limits::{DecodeLimits, MAX_DAYS_TO_KAFKA, MAX_EDGE_CLOCK_AHEAD_MS};
use crate::protocol::progress::Offset;
use crate::protocol::window::{Window, line_id, record_id};
use crate::rows::columns::Rows;
use crate::rows::dead_letters::{DeadLetters, Reason};

/// A Kafka record, with what the caller found out about it.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The offset of the record.
    pub offset: Offset,
    /// When Kafka appended the record.
    pub kafka_time: UnixMillis,
    /// The values of the headers, or why they cannot be read.
    pub head: &'a Result<Head, HeadError>,
    /// Whether an earlier record has the id of this record: an earlier record of this batch, or a record in the ledger
    /// with an offset below this batch. Always false for a record that did not come through a spool.
    pub known: bool,
    /// Whether an operator skipped the record. Its lines then become dead letters; samples of rejected lines are left
    /// out.
    pub skipped: bool,
    /// The lines of the record.
    pub value: &'a [u8],
}

/// What became of the lines of a record: the row of the ledger, and figures that are only for metrics and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The offset of the record.
    pub offset: Offset,
    /// The id of the record; nil if its headers cannot be read.
    pub record_id: Uuid,
    /// When Kafka appended the record.
    pub kafka_time: UnixMillis,
    /// Number of lines in the record, whether stored or not; 0 in a record of samples of rejected lines.
    pub lines: u32,
    /// Lines that became dead letters.
    pub rejected: u32,
    /// Readable lines that repeat a stored line, or whose record repeats an earlier record.
    pub duplicates: u32,
    /// Lines that became rows: `lines - rejected - duplicates`.
    pub stored: u32,
    /// Rows whose `client_time` was not trusted.
    pub time_replaced: u32,
    /// Rows whose `server_time` was not trusted. Not in the ledger.
    pub arrival_replaced: u32,
    /// For each stored line with an `event_id` other than nil: the hash of tenant and `event_id` ([`line_id`]), in the
    /// order of the lines.
    pub ids: Vec<u64>,
    /// The first rejected line: its number in the record, from 0, and the reason. Not in the ledger.
    pub first_rejected: Option<(u32, Reason)>,
}

/// The decoded lines of a batch.
#[derive(Debug, Default)]
pub struct DecodedLines {
    /// The lines that are stored.
    pub rows: Rows,
    /// The lines that became dead letters, and the samples of lines that the edge rejected.
    pub dead_letters: DeadLetters,
    /// Records whose number of lines differs from their header `n`.
    pub miscounted: Miscounted,
}

/// The records of a batch that have a header `n` other than their number of lines. The edge writes no such records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Miscounted {
    /// How many such records there are.
    pub records: u64,
    /// The first such record.
    pub first: Option<Miscount>,
}

/// A record whose header `n` differs from its number of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Miscount {
    /// The offset of the record.
    pub offset: Offset,
    /// The number of lines according to the header `n`.
    pub declared: u32,
    /// The number of lines in the value of the record.
    pub read: u32,
}

impl Miscounted {
    fn compare(&mut self, offset: Offset, declared: u32, read: u32) {
        if declared != read {
            self.records += 1;
            self.first.get_or_insert(Miscount { offset, declared, read });
        }
    }
}

impl fmt::Display for Miscount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, declared, read } = self;
        write!(f, "the record at offset {offset} has {read} lines, but its header `n` says {declared}")
    }
}

/// Appends the rows and dead letters of `record` to `out`, adds the ids of the record and of its stored lines to the
/// deduplication window, and returns the record's row of the ledger.
///
/// # Errors
/// This release does not know the format version or the kind of the record, and no operator skipped the record. `out`
/// and the window are then unchanged.
pub fn decode(
    record: &Record<'_>,
    limits: &DecodeLimits,
    window: &mut Window,
    out: &mut DecodedLines,
) -> Result<LedgerEntry, HeadError> {
    let head = match record.head {
        _ if record.skipped => Err(Reason::Skipped),
        Err(error @ (HeadError::Version(_) | HeadError::Kind(_))) => return Err(error.clone()),
        Err(error @ HeadError::Header(_)) => Err(Reason::Head(error.clone())),
        Ok(head) if spooled_too_long(head, record.kafka_time, limits.spooled_days) => {
            Err(Reason::SpooledTooLong { days: limits.spooled_days })
        }
        Ok(_) => Ok(()),
    };
    window.expire(record.kafka_time, &limits.window);
    let id = record.head.as_ref().map_or(Uuid::nil(), |head| head.id);
    let repeats = record.known || record_id(id).is_some_and(|id| window.contains(id));
    let mut entry = LedgerEntry {
        offset: record.offset,
        record_id: id,
        kafka_time: record.kafka_time,
        lines: 0,
        rejected: 0,
        duplicates: 0,
        stored: 0,
        time_replaced: 0,
        arrival_replaced: 0,
        ids: Vec::new(),
        first_rejected: None,
    };
    let (events, samples): (&[u8], &[u8]) = match record.head {
        Ok(Head { kind: Kind::Rejected, .. }) => (&[], record.value),
        _ => (record.value, &[]),
    };
    let letter_bytes = limits.dead_letter_bytes;
    if !repeats && !record.skipped {
        for (number, text) in (0..).zip(record::lines(samples)) {
            out.dead_letters.push_sample(record.offset, record.kafka_time, number, text, letter_bytes);
        }
    }
    let (mut seen, mut reader) = (HashSet::new(), Reader::default());
    for text in record::lines(events) {
        let read = head.clone().and_then(|()| read(text, &mut reader));
        let numbered = read.and_then(|line| {
            let arrival = Arrival::of(&line, record.kafka_time, limits.version)?;
            let id = line.event.event_id.filter(|id| !id.is_nil()).map(|id| line_id(line.tenant, id));
            if repeats || id.is_some_and(|id| window.contains(id) || seen.contains(&id)) {
                return Ok(None);
            }
            let number = u16::try_from(entry.stored).map_err(|_| Reason::Beyond)?;
            Ok(Some((number, id, line, arrival)))
        });
        match numbered {
            Ok(Some((number, id, line, arrival))) => {
                let time = limits.time.event_time(line.event.client_time, arrival.time);
                entry.stored += 1;
                entry.ids.extend(id.filter(|id| seen.insert(*id)));
                entry.time_replaced += u32::from(time.replaced);
                entry.arrival_replaced += u32::from(arrival.replaced);
                append(record, number, &line, arrival.time, time.time, &mut out.rows);
            }
            Ok(None) => entry.duplicates += 1,
            Err(reason) => {
                entry.rejected += 1;
                out.dead_letters.push(
                    record.offset,
                    record.kafka_time,
                    entry.lines,
                    text,
                    &reason,
                    letter_bytes,
                );
                entry.first_rejected.get_or_insert((entry.lines, reason));
            }
        }
        entry.lines += 1;
    }
    if let Ok(Head { lines, .. }) = record.head {
        let read = entry.lines + record::lines(samples).count() as u32;
        out.miscounted.compare(record.offset, *lines, read);
    }
    window.push(entry.offset, entry.kafka_time, entry.record_id, &entry.ids, &limits.window);
    Ok(entry)
}

/// Whether the record came through a spool and was more than `days` days old when Kafka appended it (see
/// [`Reason::SpooledTooLong`]). The answer depends only on the record and on `days`, so it is the same each time the
/// record is decoded. The answer of a query to the ledger would change when the ledger drops rows.
fn spooled_too_long(head: &Head, kafka_time: UnixMillis, days: i64) -> bool {
    let created_at = || {
        let (seconds, nanos) = head.id.get_timestamp()?.to_unix();
        Some(i64::try_from(seconds).ok()? * 1000 + i64::from(nanos / 1_000_000))
    };
    head.spooled && created_at().is_some_and(|created_at| created_at < kafka_time.0 - days * DAY)
}

type Line<'a> = Enriched<'a, Vec<(Cow<'a, str>, &'a str)>>;

fn read<'a>(line: &'a [u8], reader: &mut Reader<'a>) -> Result<Line<'a>, Reason> {
    let text = str::from_utf8(line).map_err(|_| Reason::bad_utf8())?;
    Ok(reader.read(text)?)
}

/// When a line arrived.
struct Arrival {
    /// The `server_time` of the line, or Kafka's time if the clock of the edge was not trusted.
    time: UnixMillis,
    /// Whether the clock of the edge was not trusted.
    replaced: bool,
}

impl Arrival {
    /// The `server_time` of a line if it is at most [`MAX_DAYS_TO_KAFKA`] before and at most
    /// [`MAX_EDGE_CLOCK_AHEAD_MS`] after Kafka's time; else Kafka's time. The result decides in which table partition
    /// the raw row is stored. An edge with a wrong clock must not create table partitions, or add rows to days long
    /// past.
    fn of(line: &Line<'_>, kafka_time: UnixMillis, version: u32) -> Result<Self, Reason> {
        let trusted = kafka_time.0 - MAX_DAYS_TO_KAFKA * DAY..=kafka_time.0 + MAX_EDGE_CLOCK_AHEAD_MS;
        // Version 1 of the decoding code trusted the clock of every edge.
        let replaced = version > 1 && !trusted.contains(&line.server_time.0);
        let time = if replaced { kafka_time } else { line.server_time };
        // From version 2 on, `time` is near Kafka's time. So `time` is outside `STORABLE` only if Kafka's time is
        // outside `STORABLE` too, or is close to the start or end of `STORABLE`.
        if !STORABLE.contains(&time) {
            return Err(Reason::Read(ReadError::Added("server_time")));
        }
        Ok(Self { time, replaced })
    }
}

fn append(
    record: &Record<'_>,
    number: u16,
    read: &Line<'_>,
    arrived: UnixMillis,
    counted_at: UnixMillis,
    rows: &mut Rows,
) {
    let sent = &read.event;
    // All columns must have the same length. This pattern has no `..`, so a column that is missing from the pattern is
    // a compile error, and a column that gets no value below is an unused variable.
    let Rows {
        tenant,
        event,
        client_time,
        server_time,
        ip,
        user_id,
        device_id,
        device_os,
        session,
        sequence,
        param_int,
        param_str,
        country,
        event_id,
        props,
        ko,
        line,
        event_time,
        received,
    } = rows;
    tenant.push(read.tenant);
    event.push(&sent.event);
    client_time.push(sent.client_time.unwrap_or(arrived));
    server_time.push(arrived);
    ip.push(match read.ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    });
    user_id.push(&sent.user_id);
    device_id.push(&sent.device_id);
    device_os.push(&sent.device_os);
    session.push(&sent.session);
    sequence.push(sent.sequence);
    param_int.push(sent.param_int);
    param_str.push(&sent.param_str);
    country.push(sent.country.as_str());
    event_id.push(sent.event_id.unwrap_or_default());
    props.push_with(|out| props::write(&read.props, out));
    ko.push(record.offset.to_u64());
    line.push(number);
    event_time.push(counted_at);
    received.push(arrived.min(record.kafka_time));
}

#[cfg(test)]
mod tests;
