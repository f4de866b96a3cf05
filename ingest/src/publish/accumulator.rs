//! Group commit of one partition: what is sent now, and what waits for company.
//!
//! A request's lines wait for the requests that are ready at the same moment, and for
//! no time: the first of them is appointed to send once the others have added theirs.
//! While two records are under way, lines gather in one open record, which goes when an
//! acknowledgement comes back. A full record never waits.
//!
//! Invariant: an open record with lines in it has somebody appointed to send it, or two
//! records under way before it, so that an acknowledgement will come and send it. No I/O,
//! no clock, no lock; the caller sends, under the lock that holds the lane, so that records
//! go in the order in which they were closed.

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

/// One partition's records.
#[derive(Default)]
pub struct Lane {
    open: Record,
    in_flight: usize,
    /// Whether somebody will call [`Lane::send_open`].
    appointed: bool,
}

/// What became of lines that were appended.
#[must_use = "whoever is appointed must send"]
pub struct Appended {
    /// Those of all records that hold the lines.
    pub receipts: Vec<Receipt>,
    /// Whether the caller is appointed: it must call [`Lane::send_open`], once others have had the
    /// chance to append.
    pub appointed: bool,
}

impl Lane {
    /// Takes the lines of one request. `send` hands a closed record to Kafka's client and
    /// returns whether it took it; if not, it has said so on the record's receipt.
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
                self.close(&mut send);
            }
            let is_all = piece.len() == chunk.value.len();
            let lines = if is_all { chunk.lines } else { memchr_iter(b'\n', piece).count() as u32 };
            self.open.push(piece, lines, ack, trace);
            receipts.push(Arc::clone(&self.open.receipt));
            if self.open.bytes() >= TARGET_BYTES {
                self.close(&mut send);
            }
        }
        let appointed = !self.appointed && self.open.lines > 0 && self.in_flight < MAX_IN_FLIGHT;
        self.appointed |= appointed;
        Appended { receipts, appointed }
    }

    /// Sends what is open, unless an acknowledgement will: the duty of whoever was appointed.
    pub fn send_open(&mut self, mut send: impl FnMut(&Record) -> bool) {
        self.appointed = false;
        self.close_if_free(&mut send);
    }

    /// One record has ended, well or not.
    pub fn ended(&mut self, mut send: impl FnMut(&Record) -> bool) {
        assert!(self.in_flight > 0, "a record ends once, after it was sent");
        self.in_flight -= 1;
        if !self.appointed {
            self.close_if_free(&mut send);
        }
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
