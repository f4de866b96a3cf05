//! Applies batches: declare → insert, strictly one batch after another.

use std::sync::Arc;
use std::time::SystemTime;

use schemas::time::{SECOND, UnixMillis};
use tokio::sync::mpsc;
use tokio::time;

use crate::apply::insert::NotApplied;
use crate::health::Component;
use crate::kafka::commit::{Committed, Committer};
use crate::kafka::topic::Recreated;
use crate::pipeline::PipelineEnd;
use crate::pipeline::context::PartitionContext;
use crate::pipeline::message::{PipelineMessage, ReadyBatch};
use crate::pipeline::since::SinceNotes;
use crate::protocol::intent::Intent;
use crate::protocol::progress::{NextOffset, Offset, Progress};

impl PartitionContext {
    /// Declares and inserts one batch after another, until the collector ends or the pipeline is stopped.
    pub(super) async fn apply_all(
        self,
        mut messages: mpsc::Receiver<PipelineMessage>,
        progress: Progress,
        committed: Committed,
        after: Option<Intent>,
        since: SinceNotes,
    ) -> PipelineEnd {
        let committer = Committer {
            consumer: Arc::clone(&self.consumer),
            topic: self.services.topic.clone(),
            partition: self.partition,
            member: Arc::clone(&self.member),
            committed,
            under_way: Arc::clone(&self.commits),
            give_up: self.give_up.clone(),
            metrics: Arc::clone(&self.services.metrics),
            health: Arc::clone(&self.services.health),
        };
        let mut applier = Applier { context: &self, committer, progress, after, since: Some(since) };
        applier.run(&mut messages).await.err().unwrap_or(PipelineEnd::Stopped)
    }
}

/// Declares and inserts the batches of one partition.
struct Applier<'p> {
    context: &'p PartitionContext,
    committer: Committer,
    progress: Progress,
    /// The intent to commit if no other batch follows.
    after: Option<Intent>,
    /// The changes to the stored moments since which each rollup has every event of the partition. They are written
    /// once, around the first commit under the declaration of this process: before this commit, moments that are not
    /// valid are withdrawn; after it, the moments of the rollups that begin to count with it are stored. `None` once
    /// the first write has begun.
    since: Option<SinceNotes>,
}

impl Applier<'_> {
    async fn run(&mut self, messages: &mut mpsc::Receiver<PipelineMessage>) -> Result<(), PipelineEnd> {
        let max_age = self.context.services.batch.max_age;
        loop {
            let message = match time::timeout(max_age, messages.recv()).await {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(_) => {
                    self.commit_after().await?;
                    continue;
                }
            };
            match message {
                // The pipeline is stopped, and this batch is not declared yet. The next owner reads the records of the
                // batch again, and may close its own batch at another offset.
                PipelineMessage::Batch(ready)
                    if !ready.declared.rebuilt && self.context.stop.is_cancelled() =>
                {
                    break;
                }
                PipelineMessage::Batch(ready) => self.apply(*ready).await?,
                PipelineMessage::Idle(after) => self.after = Some(*after),
            }
        }
        self.commit_after().await
    }

    async fn apply(&mut self, ready: ReadyBatch) -> Result<(), PipelineEnd> {
        let ReadyBatch { declared, intent, after, counts, as_of, permit } = ready;
        let PartitionContext { services, applied_watch, give_up, .. } = self.context;
        // The topic id is checked after the records were read and before the batch is declared or inserted, so that no
        // record of a topic that was created again under the same name is counted.
        let same = give_up.run_until_cancelled(services.topic_watch.check()).await;
        same.ok_or(PipelineEnd::Stopped)?.map_err(|Recreated| PipelineEnd::Stopped)?;
        if declared.rebuilt {
            services.metrics.recovered_intents.inc();
        } else {
            self.commit(declared.start, &intent).await?;
        }
        let log_generation = declared.source.log_generation;
        self.progress.declare(Offset::new(declared.end.to_i64() - 1), declared.cells.len());
        let progress = &mut self.progress;
        let applied = services.inserter.apply(declared, give_up, || progress.cell_applied()).await;
        match applied {
            Ok(()) => {}
            Err(NotApplied::GivenUp) => return Err(PipelineEnd::Stopped),
            Err(NotApplied::Stopped(stopped)) => {
                services.health.alarm(Component::Inserts(self.context.partition.into()), &stopped);
                let _counted = services.metrics.partition_stopped();
                self.context.stop.cancelled().await;
                return Err(PipelineEnd::Stopped);
            }
        }
        drop(permit);
        applied_watch.advance(log_generation, self.progress.applied(), as_of);
        self.after = after;
        services.metrics.applied(&counts, UnixMillis::from(SystemTime::now()).0 / SECOND);
        Ok(())
    }

    /// Commits the intent `after` if it is not committed yet and every declared batch is applied.
    async fn commit_after(&mut self) -> Result<(), PipelineEnd> {
        if self.progress.may_declare()
            && let Some(after) = self.after.take()
        {
            self.commit(self.progress.applied(), &after).await?;
        }
        Ok(())
    }

    /// Commits the offset `from` with `intent`. Every record below `from` must be applied. With the first intent that
    /// names the declaration of this process, also changes the stored moments since which rollups have every event.
    async fn commit(&mut self, from: NextOffset, intent: &Intent) -> Result<(), PipelineEnd> {
        let PartitionContext { services, give_up, .. } = self.context;
        let is_ours = || intent.declaration_hash == services.declaration.hash();
        let Some(since) = self.since.take_if(|_| is_ours()) else {
            return Ok(self.committer.commit(from, intent).await?);
        };
        give_up.run_until_cancelled(since.withdraw(services)).await.ok_or(PipelineEnd::Stopped)?;
        self.committer.commit(from, intent).await?;
        let begun = give_up.run_until_cancelled(since.begin(services, intent.newest)).await;
        begun.ok_or(PipelineEnd::Stopped)
    }
}
