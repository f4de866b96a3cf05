//! The pipeline of one partition: restore → collect → declare → insert.
//!
//! A thread restores the partition, then polls the partition's queue, decodes the records, closes batches and turns
//! each batch into cells ([`collect`]). A task declares each batch in Kafka and inserts it, strictly one batch after
//! another.
//! Invariant: a declared batch is finished, by this pipeline or by the pipeline of the next owner, before another batch
//! is declared.

use std::sync::Arc;
use std::thread;

use rdkafka::consumer::base_consumer::PartitionQueue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::health::Component;
use crate::kafka::commit::CommitAborted;
use crate::kafka::group_context::{GroupConsumer, GroupContext};
use crate::pipeline::applied_watch::AppliedWatch;
use crate::pipeline::collect::Collector;
use crate::pipeline::context::{PartitionContext, Services};
use crate::pipeline::restore::restore;
use crate::pipeline::since::SinceNotes;
use crate::protocol::intent::Intent;
use crate::protocol::progress::{Progress, may_release};
use crate::protocol::recover::{KafkaState, Resume};

pub mod context;

pub mod restore;

pub mod collect;

mod records;

pub mod batcher;

pub mod budget;

pub(crate) mod message;

mod since;

mod applier;

mod stopped;

pub mod applied_watch;

/// How a pipeline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipelineEnd {
    /// The pipeline was stopped.
    Stopped,
    /// The outcome of a commit is unknown, or Kafka refused the commit and a retry would be useless or unsafe. This
    /// process must leave the group and join it again.
    CommitUnknown,
    /// Another process with the same `GROUP_INSTANCE_ID` has taken the place of this process in the group.
    Fenced,
}

impl From<CommitAborted> for PipelineEnd {
    fn from(aborted: CommitAborted) -> Self {
        match aborted {
            CommitAborted::GivenUp => Self::Stopped,
            CommitAborted::OutcomeUnknown => Self::CommitUnknown,
            CommitAborted::Fenced => Self::Fenced,
        }
    }
}

/// A running pipeline.
pub struct Pipeline {
    /// The progress of the pipeline.
    pub applied_watch: Arc<AppliedWatch>,
    stop: CancellationToken,
    give_up: CancellationToken,
    /// Each commit in flight holds a clone, so the reference count shows whether a commit is in flight.
    commits: Arc<()>,
    thread: thread::JoinHandle<PipelineEnd>,
}

impl Pipeline {
    /// Starts the pipeline of `partition`, which was assigned under the member id `member`. `found` is the state of the
    /// partition in Kafka.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(
        services: &Arc<Services>,
        consumer: &Arc<GroupConsumer>,
        member: &Arc<str>,
        queue: PartitionQueue<GroupContext>,
        partition: u16,
        found: KafkaState,
    ) -> std::io::Result<Self> {
        let (applied_watch, commits) = (Arc::new(AppliedWatch::new()), Arc::new(()));
        let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
        let context = PartitionContext {
            services: Arc::clone(services),
            consumer: Arc::clone(consumer),
            member: Arc::clone(member),
            partition,
            applied_watch: Arc::clone(&applied_watch),
            stop: stop.clone(),
            give_up: give_up.clone(),
            commits: Arc::clone(&commits),
        };
        let thread = thread::Builder::new()
            .name(format!("partition {partition}"))
            .spawn(move || context.run(&queue, &found))?;
        Ok(Self { applied_watch, stop, give_up, commits, thread })
    }

    /// Signals the pipeline to stop. It stops reading records, finishes the batch that is being inserted, and ends.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Signals the pipeline to stop at once. If a batch is declared, the next owner finishes it.
    pub fn give_up(&self) {
        self.stop.cancel();
        self.give_up.cancel();
    }

    /// Whether the pipeline has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Whether the partition may be released to another owner: the pipeline has ended and no commit is in flight.
    pub fn may_release(&self) -> bool {
        may_release(self.has_ended(), Arc::strong_count(&self.commits) > 1)
    }

    /// Waits until the pipeline has ended. Returns how it ended; `None` if its thread panicked.
    pub fn ended(self) -> Option<PipelineEnd> {
        self.thread.join().ok()
    }
}

impl PartitionContext {
    fn run(self, queue: &PartitionQueue<GroupContext>, found: &KafkaState) -> PipelineEnd {
        let runtime = &self.services.runtime;
        let restoring = restore(&self.services, self.partition, found);
        let restored = match runtime.block_on(self.stop.run_until_cancelled(restoring)) {
            None => return PipelineEnd::Stopped,
            Some(Ok(restored)) => restored,
            Some(Err(error)) => {
                self.report_and_wait(&error.into());
                return PipelineEnd::Stopped;
            }
        };
        let finding = SinceNotes::find(&self.services, self.partition, found);
        let Some(since) = runtime.block_on(self.stop.run_until_cancelled(finding)) else {
            return PipelineEnd::Stopped;
        };
        let Resume { from, rebuild, intent } = &restored.resume;
        self.applied_watch.advance(intent.log_generation, *from, None);
        let declared =
            rebuild.map(|last| format!("; the batch up to {last} is declared")).unwrap_or_default();
        tracing::info!("partition {}: reads from offset {from}{declared}", self.partition);
        let (sender, messages) = mpsc::channel(1);
        let committed = found.committed.clone();
        let after = self.redeclared(&restored.resume, found, &since);
        let applying =
            runtime.spawn(self.clone().apply_all(messages, Progress::new(*from), committed, after, since));
        if let Err(stopped) = Collector::new(&self, restored).collect(queue, &sender) {
            self.report_and_wait(&stopped);
        }
        drop(sender);
        let ended = runtime.block_on(applying).expect("the task that inserts does not panic");
        self.services.health.recovered(Component::Inserts(self.partition.into()));
        ended
    }

    /// The intent to commit if no batch follows. It names the declaration of this process, so that the commit in Kafka
    /// names it even if the partition gets no records.
    ///
    /// `None` if a commit would change nothing: the committed intent already names this declaration, and `since` has no
    /// moment to store. Also `None` while a declared batch or adopted records are unfinished, and if no offset is
    /// committed.
    fn redeclared(&self, resume: &Resume, found: &KafkaState, since: &SinceNotes) -> Option<Intent> {
        let Resume { from, rebuild, intent } = resume;
        let declaration_hash = self.services.declaration.hash();
        // Until the records that `stream-agg adopt` found in the tables are finished, their declaration stays in use.
        let free = rebuild.is_none() && intent.adopted.is_none_or(|adopted| adopted <= *from);
        let is_due = intent.declaration_hash != declaration_hash || !since.is_empty();
        (free && is_due && found.committed.is_some()).then(|| Intent { declaration_hash, ..intent.clone() })
    }
}

#[cfg(test)]
impl Pipeline {
    /// Returns a pipeline that ends at once, and a guard. One commit of the pipeline is in flight until the guard is
    /// dropped.
    pub(crate) fn ended_while_committing() -> (Self, Arc<()>) {
        let commit = Arc::new(());
        let thread = thread::spawn(|| PipelineEnd::CommitUnknown);
        let pipeline = Self {
            applied_watch: Arc::new(AppliedWatch::new()),
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
            commits: Arc::clone(&commit),
            thread,
        };
        (pipeline, commit)
    }
}
