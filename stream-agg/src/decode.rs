//! A record becomes rows and its line in the ledger.
//!
//! Pure: the same record gives the same rows, always. A line that cannot be read is
//! counted and does not hold up the others; a record of a format that is not known
//! yet is an error, for its events were acknowledged and this release is too old.

pub mod props;

use std::borrow::Cow;
use std::net::IpAddr;

use schemas::event::{Code, Fault};
use schemas::line::{self, Enriched, ReadError};
use schemas::record::{self, Head, HeadError};
use schemas::row::TimeLimits;
use schemas::time::UnixMillis;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::progress::Offset;
use crate::rows::Rows;

/// A Kafka record, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Where it stands.
    pub offset: Offset,
    /// When Kafka appended it.
    pub kafka_time: UnixMillis,
    /// What its headers say.
    pub head: &'a Result<Head, HeadError>,
    /// Its lines.
    pub value: &'a [u8],
}

/// What became of a record: its line in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub offset: Offset,
    /// Its identity; nil if its headers do not tell.
    pub record_id: Uuid,
    /// When Kafka appended it.
    pub kafka_time: UnixMillis,
    /// Lines in it.
    pub lines: u32,
    /// Lines that could not be read.
    pub rejected: u32,
    /// Lines that became rows.
    pub stored: u32,
    /// Rows whose `client_time` was not believed.
    pub time_replaced: u32,
    /// The first line that could not be read, from 0, and why.
    pub first_fault: Option<(u32, RejectedLine)>,
}

/// Why a line became no row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RejectedLine {
    /// It is not what the edge writes.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is beyond what `line` can number.
    #[error("read a line: its record has more than {} of them", u16::MAX)]
    Beyond,
    /// Its record is not one of ours.
    #[error(transparent)]
    Head(HeadError),
}

/// Appends the rows of `record`.
///
/// # Errors
/// A format version that this release does not know; then nothing was appended.
pub fn decode(record: &Record<'_>, limits: &TimeLimits, rows: &mut Rows) -> Result<Entry, HeadError> {
    let head = match record.head {
        Err(error @ HeadError::Version(_)) => return Err(error.clone()),
        Err(error @ HeadError::Header(_)) => Err(RejectedLine::Head(error.clone())),
        Ok(head) => Ok(head),
    };
    let mut entry = Entry {
        offset: record.offset,
        record_id: head.as_ref().map_or(Uuid::nil(), |head| head.id),
        kafka_time: record.kafka_time,
        lines: 0,
        rejected: 0,
        stored: 0,
        time_replaced: 0,
        first_fault: None,
    };
    for line in record::lines(record.value) {
        let read = head.clone().and_then(|_| read(line, entry.stored));
        match read {
            Ok((number, line)) => {
                entry.stored += 1;
                entry.time_replaced += u32::from(append(record, number, &line, limits, rows));
            }
            Err(reason) => {
                entry.rejected += 1;
                entry.first_fault.get_or_insert((entry.lines, reason));
            }
        }
        entry.lines += 1;
    }
    Ok(entry)
}

type Line<'a> = Enriched<'a, Vec<(Cow<'a, str>, &'a RawValue)>>;

/// A line and its number among the stored ones.
fn read(line: &[u8], stored: u32) -> Result<(u16, Line<'_>), RejectedLine> {
    let number = u16::try_from(stored).map_err(|_| RejectedLine::Beyond)?;
    let text = str::from_utf8(line).map_err(|_| ReadError::Event(Fault::line(Code::BadUtf8)))?;
    Ok((number, line::read(text)?))
}

/// Returns whether the client's time was not believed.
fn append(record: &Record<'_>, number: u16, line: &Line<'_>, limits: &TimeLimits, rows: &mut Rows) -> bool {
    let event = &line.event;
    let event_time = limits.event_time(event.client_time, line.server_time);
    rows.tenant.push(line.tenant);
    rows.event.push(&event.event);
    rows.client_time.push(event.client_time.unwrap_or(line.server_time));
    rows.server_time.push(line.server_time);
    rows.ip.push(match line.ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    });
    rows.user_id.push(&event.user_id);
    rows.device_id.push(&event.device_id);
    rows.device_os.push(&event.device_os);
    rows.session.push(&event.session);
    rows.sequence.push(event.sequence);
    rows.param_int.push(event.param_int);
    rows.param_str.push(&event.param_str);
    rows.country.push(event.country.as_str());
    rows.event_id.push(event.event_id.unwrap_or_default());
    rows.props.push_with(|out| props::write(&line.props, out));
    rows.ko.push(record.offset.to_u64());
    rows.line.push(number);
    rows.event_time.push(event_time.time);
    rows.kafka_time.push(record.kafka_time);
    event_time.replaced
}

#[cfg(test)]
mod tests;
