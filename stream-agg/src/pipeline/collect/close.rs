//! A closed batch becomes what is committed and inserted.

use std::time::{Duration, Instant, SystemTime};

use schemas::time::UnixMillis;

use crate::apply::insert::{Token, Work};
use crate::pipeline::collect::Collector;
use crate::pipeline::context::Part;
use crate::pipeline::message::{Closed, Handed};
use crate::protocol::idle::{At, Standstill};
use crate::protocol::intent::{Intent, LogMark};
use crate::protocol::progress::{NextOffset, Offset};
use crate::rows::batch::Batch;
use crate::rows::cells;
use crate::rows::cells::{Cells, Source};
use crate::rows::decode::{Entry, Miscounted};

/// Between two questions to Kafka where the log ends, while a partition looks idle.
const ASK_PAUSE: Duration = Duration::from_secs(5);

impl Collector<'_> {
    /// Makes of a closed batch what is committed and inserted.
    pub(super) fn close(&mut self, batch: Batch) -> Handed {
        let Part { shared, kp, .. } = self.part;
        let mut counts = batch.counts();
        if let Some((offset, line, reason)) = first_fault(&batch.entries) {
            let rejected = counts.rejected;
            tracing::warn!(
                "partition {kp}: {rejected} lines rejected, first line {line} of offset {offset}: {reason}"
            );
        }
        let Miscounted { records, first } = batch.decoded.miscounted;
        if let Some(first) = first {
            tracing::error!(
                "partition {kp}: {first}; {records} such records in its batch. The lines that are there are \
                 stored; look at the program that wrote the record, for others may be missing"
            );
            shared.metrics.miscounted(records);
        }
        let (lo, hwm, rebuilt) = (batch.lo, batch.hwm, self.batcher.rebuilds());
        let cfg = self.declaration.cfg();
        let last = Offset::new(hwm.to_i64() - 1);
        // The token of what is rebuilt is that of its first owner.
        let nonce = if rebuilt { self.nonce } else { fastrand::u64(1..) };
        let intent =
            Intent { last: Some(last), last_epoch: self.epoch, nonce, cfg, ..above(&self.before, lo) };
        let after = Intent {
            cfg,
            window: self.window.mark(hwm),
            newest: batch.entries.last().map(|entry| entry.kafka_time),
            log: LogMark { epoch: self.epoch, ..self.before.log },
            ..above(&self.before, hwm)
        };
        let source = Source { g: intent.g, kp: *kp, cfg };
        let Cells { all: cells, folded_rows, mistyped } = cells::cells(&batch, &self.declaration, source);
        (counts.folded_rows, counts.mistyped) = (folded_rows, mistyped);
        let skipped = self.before.skipped.iter().any(|offset| lo.is_at_or_below(*offset) && *offset <= last);
        let token = Token::new(source, &shared.topic, lo, last, nonce);
        let token = if skipped { token.skipping() } else { token };
        self.before = after.clone();
        // Of what was declared and split, only the end is the end of what was declared.
        let after = (!rebuilt || self.batcher.has_rebuilt()).then_some(after);
        if self.is_behind_what_was_declared(hwm) {
            self.collect_anew(hwm);
        }
        let work = Work { token, source, lo, hwm, cells, rebuilt };
        let (place, as_of) = (self.place.take(), self.as_of);
        Handed::Batch(Box::new(Closed { work, intent, after, counts, as_of, place }))
    }

    /// Forgets a window that no later record can meet, so that it need not be restored.
    pub(super) fn idle(&mut self) -> Option<Handed> {
        let standstill = Standstill {
            at: match (self.batcher.rebuilds(), self.batcher.is_empty()) {
                (true, _) => At::Rebuild,
                (false, false) => At::OpenBatch,
                (false, true) => At::Nothing,
            },
            read: self.batcher.lo(),
            applied: self.part.track.applied().next?,
            newest: self.window.newest()?,
            window_age_ms: self.declaration.limits.window.age_ms,
        };
        let now = || UnixMillis::from(SystemTime::now());
        let asked_lately = self.asked_end.is_some_and(|at| at.elapsed() < ASK_PAUSE);
        if !standstill.may_be_idle(now()) || asked_lately {
            return None;
        }
        self.asked_end = Some(Instant::now());
        // Kafka is away: asked again later.
        let (_, end) = self.part.watermarks().ok()?;
        if !standstill.is_idle(now(), end) {
            return None;
        }
        self.window.clear();
        let window = self.window.mark(self.batcher.lo());
        self.before = Intent { window, ..self.before.clone() };
        Some(Handed::Quiet(Box::new(self.before.clone())))
    }
}

/// `intent` without what concerns only offsets below `lo`, and without a declared batch.
fn above(intent: &Intent, lo: NextOffset) -> Intent {
    Intent {
        last: None,
        last_epoch: None,
        nonce: 0,
        adopted: intent.adopted.filter(|adopted| *adopted > lo),
        split: Vec::new(),
        skipped: intent.skipped.iter().copied().filter(|offset| lo.is_at_or_below(*offset)).collect(),
        ..intent.clone()
    }
}

fn first_fault(entries: &[Entry]) -> Option<(Offset, u32, String)> {
    entries.iter().find_map(|entry| {
        let (line, reason) = entry.first_fault.as_ref()?;
        Some((entry.offset, *line, reason.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_offsets_below_a_batch_is_in_no_later_intent() {
        let (next, offset) = (NextOffset::new, Offset::new);
        let intent = Intent {
            last: Some(offset(14)),
            last_epoch: Some(3),
            adopted: Some(next(20)),
            split: vec![next(12)],
            skipped: vec![offset(11), offset(15)],
            ..Intent::fresh(next(10), 7, 2, LogMark::default())
        };
        let open = above(&intent, next(10));
        assert_eq!((open.last, open.last_epoch, open.adopted), (None, None, Some(next(20))));
        assert_eq!((open.split, open.skipped), (vec![], vec![offset(11), offset(15)]));
        assert_eq!(above(&intent, next(15)).skipped, [offset(15)]);
        let later = above(&intent, next(20));
        assert_eq!((later.adopted, later.skipped), (None, vec![]));
    }
}
