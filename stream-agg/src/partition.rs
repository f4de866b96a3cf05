//! The pipeline of one partition: recover → collect → declare → insert.
//!
//! A thread recovers the partition, then polls its queue, decodes, closes batches and
//! makes cells of them ([`crate::collect`]); a task declares each batch in Kafka and
//! inserts it, strictly one after another. Invariant: what is declared is finished
//! before anything else, by this pipeline or by that of the next owner.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, KafkaResult};
use runtime::error::chain;
use schemas::record::HeadError;
use schemas::time::UnixMillis;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::collect::{Collector, Handed};
use crate::commit::{Committed, Committer};
use crate::config::BatchConfig;
use crate::consume::{Consumer, Membership};
use crate::declaration::Declaration;
use crate::decode::Entry;
use crate::health::{Concern, Health};
use crate::insert::{Inserter, NotApplied, Work};
use crate::intent::Intent;
use crate::metrics::Metrics;
use crate::progress::{NextOffset, Offset, Progress, may_let_go};
use crate::recover::{Finding, Found, Resume, help, help_format, help_unreadable};
use crate::restore::recover;
use crate::room::{Place, Room};
use crate::store::Store;
use crate::topic::{Recreated, TopicWatch};

/// How long Kafka may take to tell where a log ends.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What all pipelines of the process share.
pub struct Shared {
    /// Topic of the records.
    pub topic: String,
    /// When a batch closes.
    pub batch: BatchConfig,
    /// Which rows records become.
    pub declaration: Arc<Declaration>,
    /// What ClickHouse holds.
    pub store: Store,
    /// How many large batches there may be.
    pub room: Room,
    /// The way into ClickHouse.
    pub inserter: Arc<Inserter>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is in trouble.
    pub health: Arc<Health>,
    /// Knows whether the topic is still the same.
    pub topic_watch: Arc<TopicWatch>,
    /// Told of each assignment, of nothing too.
    pub assigned: Notify,
    /// Runs the tasks that insert.
    pub runtime: Handle,
}

/// What a batch counts for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records.
    pub records: u64,
    /// Lines in them.
    pub lines: u64,
    /// Lines that became rows.
    pub rows: u64,
    /// Lines that could not be read.
    pub rejected: u64,
    /// Lines that were stored before.
    pub duplicates: u64,
    /// Rows whose `client_time` was not believed.
    pub time_replaced: u64,
    /// Rows whose `server_time` was not believed.
    pub arrival_replaced: u64,
    /// Rows of rollups whose groups were folded.
    pub folded_rows: u64,
    /// Values of declared fields that are of another type.
    pub mistyped: u64,
}

/// How far a partition is, for those who only look.
pub struct Track {
    applied: watch::Sender<Applied>,
}

/// What is in every cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Generation of the Kafka log.
    pub g: u16,
    /// Everything below; nothing is known before the partition was recovered.
    pub next: Option<NextOffset>,
    /// Everything that Kafka took before this moment, if it is Kafka that sets times.
    pub until: Option<UnixMillis>,
}

impl Track {
    fn new() -> Self {
        Self { applied: watch::Sender::new(Applied { g: 0, next: None, until: None }) }
    }

    /// What is in every cell now.
    pub fn applied(&self) -> Applied {
        *self.applied.borrow()
    }

    fn advance(&self, g: u16, next: NextOffset, until: Option<UnixMillis>) {
        self.applied.send_modify(|applied| {
            *applied = Applied { g, next: Some(next), until: until.max(applied.until) };
        });
    }

    /// Returns once everything below `next` is in every cell.
    pub(crate) async fn reaches(&self, next: NextOffset) {
        // The sender lives as long as `self`.
        let _ = self.applied.subscribe().wait_for(|applied| applied.next >= Some(next)).await;
    }
}

/// How a pipeline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Told,
    /// Nobody knows what became of a commit: the group must be joined anew.
    Unsure,
    /// Another process has this one's place in the group.
    Fenced,
}

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

/// One side of a pipeline.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) shared: Arc<Shared>,
    consumer: Arc<Consumer>,
    /// Member id under which the partition was assigned.
    member: Arc<str>,
    pub(crate) kp: u16,
    pub(crate) track: Arc<Track>,
    pub(crate) stop: CancellationToken,
    give_up: CancellationToken,
    commits: Arc<()>,
}

/// A closed batch on its way to Kafka and ClickHouse.
pub(crate) struct Closed {
    pub(crate) work: Work,
    /// Commits it; already committed if it was rebuilt.
    pub(crate) intent: Intent,
    /// Commits that nothing follows it; absent if more of what was declared does.
    pub(crate) after: Option<Intent>,
    /// What it counts for.
    pub(crate) counts: Counts,
    /// Everything that Kafka took before this moment is in it, or was before.
    pub(crate) as_of: Option<UnixMillis>,
    /// Held until it is applied, if it is large.
    pub(crate) place: Option<Place>,
}

/// Why a partition cannot go on before somebody helps.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stuck {
    #[error(transparent)]
    Finding(#[from] Finding),
    #[error("stopped at offset {0}")]
    Format(Offset, #[source] HeadError),
    #[error("records from offset {0} on are not applied and no longer in the log")]
    Gone(NextOffset, #[source] KafkaError),
    #[error("kafka's client cannot read the records at offset {0} or behind it")]
    Unreadable(NextOffset, #[source] KafkaError),
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

    /// Where the log begins and where it ends, as Kafka tells now. Blocks.
    pub(crate) fn watermarks(&self) -> KafkaResult<(NextOffset, NextOffset)> {
        let (low, end) = self.consumer.fetch_watermarks(&self.shared.topic, self.kp.into(), ASK_TIMEOUT)?;
        Ok((NextOffset::new(low), NextOffset::new(end)))
    }

    /// Does nothing until told to stop, and says why.
    fn hold(&self, stuck: &Stuck) {
        let concern = Concern::Partition(self.kp.into());
        let Shared { health, metrics, runtime, .. } = &*self.shared;
        let help = match stuck {
            Stuck::Finding(finding) => finding.help(self.kp),
            Stuck::Gone(..) => help(self.kp),
            Stuck::Format(offset, _) => help_format(self.kp, *offset),
            Stuck::Unreadable(..) => help_unreadable(self.kp),
        };
        let reason = chain(stuck) + &help;
        tracing::error!("{concern}: {reason}");
        health.trouble(concern, reason);
        let _counted = metrics.partition_stopped();
        runtime.block_on(self.stop.cancelled());
        health.well(concern);
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

    /// Declares and inserts one batch after another until there are no more, or told to stop.
    async fn apply_all(
        self,
        mut batches: mpsc::Receiver<Handed>,
        progress: Progress,
        known: Committed,
        after: Option<Intent>,
    ) -> Ended {
        let committer = Committer {
            consumer: Arc::clone(&self.consumer),
            topic: self.shared.topic.clone(),
            kp: self.kp,
            member: Arc::clone(&self.member),
            known,
            under_way: Arc::clone(&self.commits),
            give_up: self.give_up.clone(),
            metrics: Arc::clone(&self.shared.metrics),
            health: Arc::clone(&self.shared.health),
        };
        let mut applier = Applier { part: &self, committer, progress, after };
        applier.apply_all(&mut batches).await.err().unwrap_or(Ended::Told)
    }
}

/// The other side of a pipeline.
struct Applier<'p> {
    part: &'p Part,
    committer: Committer,
    progress: Progress,
    /// To commit if nothing follows.
    after: Option<Intent>,
}

impl Applier<'_> {
    async fn apply_all(&mut self, batches: &mut mpsc::Receiver<Handed>) -> Result<(), Ended> {
        let max_age = self.part.shared.batch.max_age;
        loop {
            let handed = match time::timeout(max_age, batches.recv()).await {
                Ok(Some(handed)) => handed,
                Ok(None) => break,
                Err(_) => {
                    self.settle().await?;
                    continue;
                }
            };
            match handed {
                // It is declared by the next owner, who is free to cut it otherwise.
                Handed::Batch(closed) if !closed.work.rebuilt && self.part.stop.is_cancelled() => break,
                Handed::Batch(closed) => self.apply(*closed).await?,
                Handed::Quiet(after) => self.after = Some(*after),
            }
        }
        self.settle().await
    }

    async fn apply(&mut self, closed: Closed) -> Result<(), Ended> {
        let Closed { work, intent, after, counts, as_of, place } = closed;
        let Part { shared, track, give_up, .. } = self.part;
        // After its records were read, before anything is done with them.
        let same = give_up.run_until_cancelled(shared.topic_watch.check()).await;
        same.ok_or(Ended::Told)?.map_err(|Recreated| Ended::Told)?;
        if work.rebuilt {
            shared.metrics.recovered_intents.inc();
        } else {
            self.committer.commit(work.lo, &intent).await?;
        }
        let g = work.source.g;
        self.progress.declare(Offset::new(work.hwm.to_i64() - 1), work.cells.len());
        let progress = &mut self.progress;
        let applied = shared.inserter.apply(work, give_up, || progress.cell_applied()).await;
        match applied {
            Ok(()) => {}
            Err(NotApplied::GivenUp) => return Err(Ended::Told),
            Err(NotApplied::Stopped(stopped)) => {
                shared.health.alarm(Concern::Inserts(self.part.kp.into()), &stopped);
                let _counted = shared.metrics.partition_stopped();
                self.part.stop.cancelled().await;
                return Err(Ended::Told);
            }
        }
        drop(place);
        track.advance(g, self.progress.applied(), as_of);
        self.after = after;
        shared.metrics.applied(&counts, UnixMillis::from(SystemTime::now()).0 / 1000);
        Ok(())
    }

    /// Commits that all is applied and nothing declared.
    async fn settle(&mut self) -> Result<(), Ended> {
        if self.progress.may_declare()
            && let Some(after) = self.after.take()
        {
            self.committer.commit(self.progress.applied(), &after).await?;
        }
        Ok(())
    }
}

impl Counts {
    pub(crate) fn of(entries: &[Entry]) -> Self {
        entries.iter().fold(Self::default(), |sum, entry| Self {
            records: sum.records + 1,
            lines: sum.lines + u64::from(entry.lines),
            rows: sum.rows + u64::from(entry.stored),
            rejected: sum.rejected + u64::from(entry.rejected),
            duplicates: sum.duplicates + u64::from(entry.duplicates),
            time_replaced: sum.time_replaced + u64::from(entry.time_replaced),
            arrival_replaced: sum.arrival_replaced + u64::from(entry.arrival_replaced),
            folded_rows: 0,
            mistyped: 0,
        })
    }
}

#[cfg(test)]
impl Part {
    /// A part of partition 0 whose Kafka and ClickHouse never answer.
    pub(crate) fn unanswered(runtime: Handle) -> Self {
        use runtime::vars::Vars;

        // A port at which nobody listens.
        let vars = [("KAFKA_BROKERS", "127.0.0.1:1"), ("CLICKHOUSE_URL", "http://127.0.0.1:1")];
        let config = crate::Config::from_vars(&Vars::from_pairs(vars)).expect("two variables are enough");
        let (metrics, health) = (Arc::new(Metrics::default()), Arc::new(Health::new("127.0.0.1:1")));
        let asker = Arc::new(crate::consume::asker(&config).expect("the settings are right"));
        let store = Store::new(&config.migrate.store);
        let topic_watch = TopicWatch::new("events".to_owned(), asker, Arc::clone(&health));
        let consumer = crate::consume::consumer(&config, None, &health).expect("the settings are right");
        let shared = Shared {
            topic: "events".to_owned(),
            batch: config.batch.clone(),
            declaration: Arc::new(config.declaration(0)),
            store,
            room: Room::new(&config.batch),
            inserter: Arc::new(Inserter::new(
                &config.migrate.store,
                Arc::clone(&metrics),
                Arc::clone(&health),
            )),
            metrics,
            health,
            topic_watch: Arc::new(topic_watch),
            assigned: Notify::new(),
            runtime,
        };
        Self {
            shared: Arc::new(shared),
            consumer: Arc::new(consumer),
            member: Arc::default(),
            kp: 0,
            track: Arc::new(Track::new()),
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
            commits: Arc::new(()),
        }
    }

    /// Its shared part.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Its consumer.
    pub(crate) fn consumer(&self) -> Arc<Consumer> {
        Arc::clone(&self.consumer)
    }

    /// The queue of its partition.
    pub(crate) fn queue(&self) -> PartitionQueue<Membership> {
        let queue = self.consumer.split_partition_queue(&self.shared.topic, self.kp.into());
        queue.expect("a consumer has a queue for each partition")
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
