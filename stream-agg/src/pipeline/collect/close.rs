//! Closes a batch. The result is its cells, the intent that declares it, and the intent to commit after it if no other
//! batch follows.

use std::time::{Duration, Instant, SystemTime};

use schemas::time::UnixMillis;

use crate::apply::insert::{DeclaredBatch, Token};
use crate::pipeline::collect::Collector;
use crate::pipeline::context::PartitionContext;
use crate::pipeline::message::{PipelineMessage, ReadyBatch};
use crate::protocol::idle::{IdleCheck, WorkState};
use crate::protocol::intent::{Intent, LogMark};
use crate::protocol::progress::{NextOffset, Offset};
use crate::rows::batch::Batch;
use crate::rows::cells::{self, Cells, Source};
use crate::rows::decode::{LedgerEntry, Miscounted};

/// Pause between two requests for the end of the log while a partition looks idle.
const ASK_PAUSE: Duration = Duration::from_secs(5);

impl Collector<'_> {
    /// Turns a closed batch into the message for the applier: the intent that declares the batch, its cells, and the
    /// intent to commit after it.
    pub(super) fn close(&mut self, batch: Batch) -> PipelineMessage {
        let PartitionContext { services, partition, .. } = self.context;
        let mut counts = batch.counts();
        if let Some((offset, line, reason)) = first_rejected(&batch.entries) {
            let rejected = counts.rejected;
            tracing::warn!(
                "partition {partition}: {rejected} lines rejected; the first is line {line} of the record at offset \
                 {offset}: {reason}"
            );
        }
        let Miscounted { records, first } = batch.decoded.miscounted;
        if let Some(first) = first {
            tracing::error!(
                "partition {partition}: {first}; {records} such records in its batch. The lines that arrived are \
                 stored; check the program that wrote the record, because other lines may be missing"
            );
            services.metrics.miscounted(records);
        }
        let (start, end, rebuilt) = (batch.start, batch.end, self.batcher.is_rebuilding());
        let declaration_hash = self.declaration.hash();
        let last = Offset::new(end.to_i64() - 1);
        // A rebuilt batch keeps the nonce that an earlier owner chose, because the deduplication token contains it: the
        // same rows must get the same token.
        let nonce = if rebuilt { self.declared_nonce } else { fastrand::u64(1..) };
        let intent = Intent {
            last: Some(last),
            last_epoch: self.newest_epoch,
            nonce,
            declaration_hash,
            ..without_earlier(&self.intent_before, start)
        };
        let after = Intent {
            declaration_hash,
            window: self.window.mark(end),
            newest: batch.entries.last().map(|entry| entry.kafka_time),
            log: LogMark { epoch: self.newest_epoch, ..self.intent_before.log },
            ..without_earlier(&self.intent_before, end)
        };
        let source =
            Source { log_generation: intent.log_generation, partition: *partition, declaration_hash };
        let Cells { all: cells, folded_rows, mistyped } = cells::cells(&batch, &self.declaration, source);
        (counts.folded_rows, counts.mistyped) = (folded_rows, mistyped);
        let skipped =
            self.intent_before.skipped.iter().any(|offset| start.is_at_or_below(*offset) && *offset <= last);
        let token = Token::new(source, &services.topic, start, last, nonce);
        let token = if skipped { token.skipping() } else { token };
        self.intent_before = after.clone();
        // A split batch must stay declared until its last part is applied, so nothing is committed after its other
        // parts.
        let mut after = (!rebuilt || self.batcher.is_rebuilt()).then_some(after);
        if self.must_begin_new_batches(end) {
            self.begin_new_batches(end);
            // The declaration may have changed. The commit must name the current one even if no batch follows.
            after = after.map(|after| Intent { declaration_hash: self.declaration.hash(), ..after });
        }
        let declared = DeclaredBatch { token, source, start, end, cells, rebuilt };
        let (permit, as_of) = (self.permit.take(), self.newest_time);
        PipelineMessage::Batch(Box::new(ReadyBatch { declared, intent, after, counts, as_of, permit }))
    }

    /// If the partition is idle, empties the deduplication window, because no later record can be a repeat, and returns
    /// the intent to commit. The next owner then has no window to restore. Otherwise returns `None`.
    pub(super) fn idle(&mut self) -> Option<PipelineMessage> {
        let idle_check = IdleCheck {
            state: match (self.batcher.is_rebuilding(), self.batcher.is_empty()) {
                (true, _) => WorkState::Rebuilding,
                (false, false) => WorkState::OpenBatch,
                (false, true) => WorkState::NoBatch,
            },
            read: self.batcher.start(),
            applied: self.context.applied_watch.applied().next?,
            newest: self.window.newest()?,
            window_age_ms: self.declaration.limits.window.age_ms,
        };
        let now = || UnixMillis::from(SystemTime::now());
        let asked_lately = self.end_asked_at.is_some_and(|at| at.elapsed() < ASK_PAUSE);
        if !idle_check.may_be_idle(now()) || asked_lately {
            return None;
        }
        self.end_asked_at = Some(Instant::now());
        // If Kafka does not answer, a later call asks it again.
        let (_, end) = self.context.watermarks().ok()?;
        if !idle_check.is_idle(now(), end) {
            return None;
        }
        self.window.clear();
        let window = self.window.mark(self.batcher.start());
        // `intent_before` may name the declaration of an earlier batch. The commit must name the current declaration.
        let declaration_hash = self.declaration.hash();
        self.intent_before = Intent { window, declaration_hash, ..self.intent_before.clone() };
        Some(PipelineMessage::Idle(Box::new(self.intent_before.clone())))
    }
}

/// `intent` without the fields of a declared batch, without skipped offsets below `start`, and without the adopted
/// marker if the marker is not above `start`.
fn without_earlier(intent: &Intent, start: NextOffset) -> Intent {
    Intent {
        last: None,
        last_epoch: None,
        nonce: 0,
        adopted: intent.adopted.filter(|adopted| *adopted > start),
        split: Vec::new(),
        skipped: intent.skipped.iter().copied().filter(|offset| start.is_at_or_below(*offset)).collect(),
        ..intent.clone()
    }
}

/// The first rejected line: the offset of its record, the number of the line in the record, and the reason.
fn first_rejected(entries: &[LedgerEntry]) -> Option<(Offset, u32, String)> {
    entries.iter().find_map(|entry| {
        let (line, reason) = entry.first_rejected.as_ref()?;
        Some((entry.offset, *line, reason.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_intent_has_nothing_that_concerns_only_earlier_offsets() {
        let (next, offset) = (NextOffset::new, Offset::new);
        let intent = Intent {
            last: Some(offset(14)),
            last_epoch: Some(3),
            adopted: Some(next(20)),
            split: vec![next(12)],
            skipped: vec![offset(11), offset(15)],
            ..Intent::fresh(next(10), 7, 2, LogMark::default())
        };
        let open = without_earlier(&intent, next(10));
        assert_eq!((open.last, open.last_epoch, open.adopted), (None, None, Some(next(20))));
        assert_eq!((open.split, open.skipped), (vec![], vec![offset(11), offset(15)]));
        assert_eq!(without_earlier(&intent, next(15)).skipped, [offset(15)]);
        let later = without_earlier(&intent, next(20));
        assert_eq!((later.adopted, later.skipped), (None, vec![]));
    }
}
