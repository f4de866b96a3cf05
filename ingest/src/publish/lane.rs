//! Group commit of one partition: what is sent now, and what waits for company.
//!
//! A lone request is sent at once. While two records are under way, lines gather in
//! one open record, which goes when an acknowledgement comes back or when it is full;
//! a full record never waits.
//!
//! Invariant: an open record with lines in it has two records under way before it, so
//! an acknowledgement will come and send it. No I/O, no clock, no lock; the caller
//! sends, under the lock that holds the lane, so that records go in the order in which
//! they were closed.

use std::iter;
use std::mem;
use std::sync::Arc;

use memchr::{memchr_iter, memrchr};
use schemas::record::{MAX_BYTES, TARGET_BYTES};
use schemas::trace::TraceParent;
use tokio::sync::SetOnce;

use crate::config::Ack;
use crate::enrich::Chunk;
use crate::outcome::Refusal;

/// Records under way at once, full ones aside.
const MAX_IN_FLIGHT: usize = 2;

/// How a record ended, told to every request that has lines in it.
pub type Receipt = Arc<SetOnce<Result<(), Refusal>>>;

/// Lines that go as one record.
#[derive(Default)]
pub struct Record {
    /// The lines, each ended by `\n`.
    value: Vec<u8>,
    /// How many.
    pub lines: u32,
    /// How many of them are of requests that are answered already.
    pub answered: u32,
    /// A trace to which one of its requests belongs: the first.
    pub trace: Option<TraceParent>,
    /// Set once, when it is delivered or has failed.
    pub receipt: Receipt,
}

impl Record {
    /// The bytes of its lines, each with its end, as they were taken.
    pub fn bytes(&self) -> usize {
        self.value.len()
    }

    /// The value of the Kafka record: its lines joined.
    pub fn value(&self) -> &[u8] {
        self.value.strip_suffix(b"\n").unwrap_or(&self.value)
    }

    fn push(&mut self, lines: &[u8], ack: Ack, trace: Option<TraceParent>) {
        self.value.extend_from_slice(lines);
        self.trace = self.trace.or(trace);
        let count = memchr_iter(b'\n', lines).count() as u32;
        self.lines += count;
        match ack {
            Ack::Durable => {}
            Ack::Accepted => self.answered += count,
        }
    }
}

/// One partition's records.
#[derive(Default)]
pub struct Lane {
    open: Record,
    in_flight: usize,
}

impl Lane {
    /// Takes the lines of one request. `send` hands a closed record to Kafka's client and
    /// returns whether it took it; if not, it has said so on the record's receipt.
    /// Returns the receipts of all records that hold lines of the chunk.
    pub fn append(
        &mut self,
        chunk: &Chunk,
        ack: Ack,
        trace: Option<TraceParent>,
        mut send: impl FnMut(&Record) -> bool,
    ) -> Vec<Receipt> {
        let mut receipts = Vec::with_capacity(1);
        for piece in pieces(&chunk.value) {
            if self.open.bytes() + piece.len() > MAX_BYTES {
                self.close(&mut send);
            }
            self.open.push(piece, ack, trace);
            receipts.push(Arc::clone(&self.open.receipt));
            if self.open.bytes() >= TARGET_BYTES {
                self.close(&mut send);
            }
        }
        self.close_if_free(&mut send);
        receipts
    }

    /// One record has ended, well or not.
    pub fn ended(&mut self, mut send: impl FnMut(&Record) -> bool) {
        assert!(self.in_flight > 0, "a record ends once, after it was sent");
        self.in_flight -= 1;
        self.close_if_free(&mut send);
    }

    /// Sends the open record, whatever is under way: nothing more will come.
    pub fn finish(&mut self, mut send: impl FnMut(&Record) -> bool) {
        self.close(&mut send);
    }

    fn close_if_free(&mut self, send: &mut impl FnMut(&Record) -> bool) {
        if self.in_flight < MAX_IN_FLIGHT {
            self.close(send);
        }
    }

    fn close(&mut self, send: &mut impl FnMut(&Record) -> bool) {
        if self.open.lines == 0 {
            return;
        }
        if send(&self.open) {
            self.in_flight += 1;
        }
        // The buffer serves the next record: Kafka's client has made its own copy.
        let mut value = mem::take(&mut self.open.value);
        value.clear();
        self.open = Record { value, ..Record::default() };
    }
}

/// The lines in parts of at most [`MAX_BYTES`], cut after line ends.
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
