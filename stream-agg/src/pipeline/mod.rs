//! The pipeline of one partition: recover → collect → declare → insert.
//!
//! A thread recovers the partition, then polls its queue, decodes, closes batches and
//! makes cells of them ([`crate::pipeline::collect`]); a task declares each batch in Kafka and
//! inserts it, strictly one after another. Invariant: what is declared is finished
//! before anything else, by this pipeline or by that of the next owner.

use std::sync::Arc;
use std::thread;

use rdkafka::consumer::base_consumer::PartitionQueue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::health::Concern;
use crate::kafka::commit::Ended;
use crate::kafka::membership::{Consumer, Membership};
use crate::pipeline::collect::Collector;
use crate::pipeline::context::{Part, Shared};
use crate::pipeline::restore::recover;
use crate::pipeline::track::Track;
use crate::protocol::intent::Intent;
use crate::protocol::progress::{Progress, may_let_go};
use crate::protocol::recover::{Found, Resume};

pub mod context;

pub mod restore;

pub mod collect;

mod records;

pub mod batcher;

pub mod budget;

pub(crate) mod message;

mod applier;

mod stopped;

pub mod track;

/// A running pipeline.
pub struct Pipeline {
    /// How far it is.
    pub track: Arc<Track>,
    stop: CancellationToken,
    give_up: CancellationToken,
    /// Held by each commit that is under way.
    commits: Arc<()>,
    thread: thread::JoinHandle<Ended>,
}

impl Pipeline {
    /// Starts to take the records of `kp`, which was assigned under the id `member`, from where `found` says.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        shared: &Arc<Shared>,
        consumer: &Arc<Consumer>,
        member: &Arc<str>,
        queue: PartitionQueue<Membership>,
        kp: u16,
        found: Found,
    ) -> std::io::Result<Self> {
        let (track, commits) = (Arc::new(Track::new()), Arc::new(()));
        let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
        let part = Part {
            shared: Arc::clone(shared),
            consumer: Arc::clone(consumer),
            member: Arc::clone(member),
            kp,
            track: Arc::clone(&track),
            stop: stop.clone(),
            give_up: give_up.clone(),
            commits: Arc::clone(&commits),
        };
        let thread =
            thread::Builder::new().name(format!("partition {kp}")).spawn(move || part.run(&queue, &found))?;
        Ok(Self { track, stop, give_up, commits, thread })
    }

    /// Takes no more records; the batch that is being inserted is finished.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends at once; what is declared is finished by the next owner.
    pub fn give_up(&self) {
        self.stop.cancel();
        self.give_up.cancel();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Whether its partition may have another owner.
    pub fn may_let_go(&self) -> bool {
        may_let_go(self.has_ended(), Arc::strong_count(&self.commits) > 1)
    }

    /// How it ended; `None` if it broke down.
    pub fn ended(self) -> Option<Ended> {
        self.thread.join().ok()
    }
}

impl Part {
    fn run(self, queue: &PartitionQueue<Membership>, found: &Found) -> Ended {
        let runtime = &self.shared.runtime;
        let recovered =
            match runtime.block_on(self.stop.run_until_cancelled(recover(&self.shared, self.kp, found))) {
                None => return Ended::Told,
                Some(Ok(recovered)) => recovered,
                Some(Err(finding)) => {
                    self.hold(&finding.into());
                    return Ended::Told;
                }
            };
        let Resume { from, rebuild, intent } = &recovered.resume;
        self.track.advance(intent.g, *from, None);
        let declared =
            rebuild.map(|last| format!("; the batch up to {last} is declared")).unwrap_or_default();
        tracing::info!("partition {}: reads from offset {from}{declared}", self.kp);
        let (hand_over, closed) = mpsc::channel(1);
        let known = found.committed.clone();
        let after = self.under_ours(&recovered.resume);
        let applying = runtime.spawn(self.clone().apply_all(closed, Progress::new(*from), known, after));
        if let Err(stuck) = Collector::new(&self, recovered).collect(queue, &hand_over) {
            self.hold(&stuck);
        }
        drop(hand_over);
        let ended = runtime.block_on(applying).expect("the task that inserts does not panic");
        self.shared.health.well(Concern::Inserts(self.kp.into()));
        ended
    }

    /// What is committed if no batch follows, where nothing is declared and another declaration
    /// was the last: so that it shows which one is at work, also of a partition without records.
    fn under_ours(&self, resume: &Resume) -> Option<Intent> {
        let Resume { from, rebuild, intent } = resume;
        let cfg = self.shared.declaration.cfg();
        // What was adopted is declared under the cfg that it was adopted with.
        let free = rebuild.is_none() && intent.adopted.is_none_or(|adopted| adopted <= *from);
        (free && intent.cfg != cfg).then(|| Intent { cfg, ..intent.clone() })
    }
}

#[cfg(test)]
impl Pipeline {
    /// A pipeline that has ended, and whose commit is under way until the second value is dropped.
    pub(crate) fn ended_while_committing() -> (Self, Arc<()>) {
        let commit = Arc::new(());
        let thread = thread::spawn(|| Ended::Unsure);
        let pipeline = Self {
            track: Arc::new(Track::new()),
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
            commits: Arc::clone(&commit),
            thread,
        };
        (pipeline, commit)
    }
}
