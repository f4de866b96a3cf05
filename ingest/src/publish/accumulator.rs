//! Group commit for one partition: the lines of several requests are collected into one record.
//!
//! Lines are appended to the *open* record. No timer sends the open record (unlike `linger.ms`, the timer of Kafka's
//! client, which the edge sets to 0 by default). Instead:
//!
//! - If fewer than two records are in flight, the first request that appends to the open record must also send it. That
//!   request first lets the other tasks that are ready run, so that their requests can append to the same record.
//! - If two or more records are in flight, no request sends the open record. When records end and fewer than two are
//!   still in flight, the open record is sent.
//! - A full record is sent at once, so more than two records can be in flight.
//!
//! Invariant: if the open record contains lines, then either a caller must send the open record, or at least two
//! records are in flight, and the end of a record will send it. This file has no I/O, no clock and no lock. Callers
//! hold the lock of the accumulator while a record is sent, so records are sent in the order in which they were closed.

use std::iter;
use std::mem;
use std::sync::Arc;

use memchr::{memchr_iter, memrchr};
use schemas::record::{MAX_BYTES, TARGET_BYTES};
use schemas::trace::TraceParent;
use tokio::sync::SetOnce;

use super::config::Ack;
use crate::accept::enrich::Chunk;
use crate::outcome::Refusal;

/// While at least this many records are in flight, the open record waits, unless it is full.
const MAX_IN_FLIGHT: usize = 2;

/// The result of a record, set when the record ends. A request with [`Ack::Durable`] waits for the receipt of every
/// record that contains some of its lines.
pub type Receipt = Arc<SetOnce<Result<(), Refusal>>>;

/// Lines that are sent as one record.
#[derive(Default)]
pub struct Record {
    /// The lines, each ended by `\n`.
    value: Vec<u8>,
    /// The number of lines.
    pub lines: u32,
    /// How many of the lines belong to requests with [`Ack::Accepted`], which are answered before the record ends.
    pub answered: u32,
    /// The trace of the first request in the record that has one.
    pub trace: Option<TraceParent>,
    /// Set once, when the record ends.
    pub receipt: Receipt,
}

impl Record {
    /// The number of bytes of the lines, with the `\n` after each.
    pub fn bytes(&self) -> usize {
        self.value.len()
    }

    /// The value of the Kafka record: the lines without the last `\n`.
    pub fn value(&self) -> &[u8] {
        self.value.strip_suffix(b"\n").unwrap_or(&self.value)
    }

    fn push(&mut self, text: &[u8], lines: u32, ack: Ack, trace: Option<TraceParent>) {
        self.value.extend_from_slice(text);
        self.trace = self.trace.or(trace);
        self.lines += lines;
        match ack {
            Ack::Durable => {}
            Ack::Accepted => self.answered += lines,
        }
    }
}

/// Collects the lines for one partition and one destination into records.
#[derive(Default)]
pub struct RecordAccumulator {
    open: Record,
    in_flight: usize,
    /// Whether a caller still has to call [`RecordAccumulator::send_open`].
    send_pending: bool,
}

/// The result of appending lines.
#[must_use = "the caller may have to send the open record"]
pub struct Appended {
    /// The receipts of all records that contain the lines.
    pub receipts: Vec<Receipt>,
    /// Whether the caller must call [`RecordAccumulator::send_open`], after other requests have had the chance to
    /// append.
    pub must_send: bool,
}

impl RecordAccumulator {
    /// Appends the lines of one request. `send` sends a closed record and returns true if the record is in flight, or
    /// false if the record has already ended.
    pub fn append(
        &mut self,
        chunk: &Chunk,
        ack: Ack,
        trace: Option<TraceParent>,
        mut send: impl FnMut(&Record) -> bool,
    ) -> Appended {
        let mut receipts = Vec::with_capacity(1);
        for piece in pieces(&chunk.value) {
            if self.open.bytes() + piece.len() > MAX_BYTES {
                self.send_record(&mut send);
            }
            let is_all = piece.len() == chunk.value.len();
            let lines = if is_all { chunk.lines } else { memchr_iter(b'\n', piece).count() as u32 };
            self.open.push(piece, lines, ack, trace);
            receipts.push(Arc::clone(&self.open.receipt));
            if self.open.bytes() >= TARGET_BYTES {
                self.send_record(&mut send);
            }
        }
        let must_send = !self.send_pending && self.open.lines > 0 && self.in_flight < MAX_IN_FLIGHT;
        self.send_pending |= must_send;
        Appended { receipts, must_send }
    }

    /// Sends the open record if fewer than two records are in flight; otherwise [`RecordAccumulator::record_ended`]
    /// sends it later. The caller of [`RecordAccumulator::append`] calls this if [`Appended::must_send`] is true.
    pub fn send_open(&mut self, mut send: impl FnMut(&Record) -> bool) {
        self.send_pending = false;
        self.send_if_free(&mut send);
    }

    /// Notes that a record in flight has ended, with any outcome. If fewer than two records are then in flight, sends
    /// the open record, unless a caller must send it.
    pub fn record_ended(&mut self, mut send: impl FnMut(&Record) -> bool) {
        assert!(self.in_flight > 0, "a record ends once, after it was sent");
        self.in_flight -= 1;
        if !self.send_pending {
            self.send_if_free(&mut send);
        }
    }

    /// Sends the open record, regardless of how many records are in flight, because no more lines will be appended.
    pub fn close(&mut self, mut send: impl FnMut(&Record) -> bool) {
        self.send_record(&mut send);
    }

    fn send_if_free(&mut self, send: &mut impl FnMut(&Record) -> bool) {
        if self.in_flight < MAX_IN_FLIGHT {
            self.send_record(send);
        }
    }

    fn send_record(&mut self, send: &mut impl FnMut(&Record) -> bool) {
        if self.open.lines == 0 {
            return;
        }
        if send(&self.open) {
            self.in_flight += 1;
        }
        // The next record reuses the buffer: Kafka's client or the spool has its own copy.
        let mut value = mem::take(&mut self.open.value);
        value.clear();
        self.open = Record { value, ..Record::default() };
    }
}

/// The lines in pieces of at most [`MAX_BYTES`]; each piece ends at the end of a line.
fn pieces(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = value;
    iter::from_fn(move || {
        let end = match rest.get(..MAX_BYTES) {
            Some(most) => memrchr(b'\n', most).expect("a line is far shorter than a record") + 1,
            None => rest.len(),
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece).filter(|piece| !piece.is_empty())
    })
}

#[cfg(test)]
mod tests;
