//! Membership of the consumer group: which partitions are ours, from where on.
//!
//! One thread polls, so that the group knows we live; it never handles a record.
//! Assigned partitions get a pipeline at their committed offset; revoked ones stop at
//! a batch boundary, within [`RELEASE`], before they are let go. The callbacks only
//! take notes. Where the end of a commit is unknown, the group is left, so that the
//! commit is refused if it arrives late, and joined anew. Invariants: no two pipelines
//! of one partition, no record outside one, no partition let go with a commit under way.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use runtime::backoff::Backoff;
use tokio::runtime::Handle;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::commit;
use crate::config::{Config, fixed};
use crate::health::{Concern, Health};
use crate::librdkafka;
use crate::partition::{Ended, Pipeline, Shared, Track};
use crate::progress::NextOffset;
use crate::recover::Found;
use crate::timestamps::Admin;

/// How long a pipeline may take to finish the batch it is inserting.
pub const RELEASE: Duration = Duration::from_secs(10);
/// How long one poll waits.
const POLL: Duration = Duration::from_millis(50);
/// How long a partition may be held for a commit under way: longer than one try of a request takes
/// (`socket.timeout.ms`, 60 s), of which librdkafka makes three at most.
///
/// Until the partition is let go, nobody else has it. This member keeps polling and its heartbeats go on,
/// so neither `max.poll.interval.ms` nor the session ends, and librdkafka joins no later generation before
/// `incremental_unassign` is called (`RD_KAFKA_CGRP_WAIT_ASSIGN_CALL`). If another member joins meanwhile, a
/// guest too, Kafka waits for this one as long as the rebalance timeout, which is `max.poll.interval.ms`
/// (300 s), and takes its commits. Where it is held longer (after this limit, [`Member::leave`] waits as long
/// once more), Kafka begins a generation that it has not joined. Only then may the partition get another
/// owner, and a commit under way, which belongs to the generation before, is refused with 22 or 25.
const HELD: Duration = Duration::from_secs(150);
/// For a guest to be assigned something: until all members have joined anew.
const VISIT: Duration = Duration::from_secs(60);
/// Shortest and longest wait before the group is joined anew. Each time, all members are assigned anew.
const JOIN_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long a member must last for the next one to wait no longer than the first.
const LASTING: Duration = Duration::from_secs(120);
/// How long Kafka may take to tell offsets.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take at least to tell of one partition after others took longer, and how long until it is
/// asked again about those of which it did not tell.
const ASK_LATE: Duration = Duration::from_millis(500);

/// The consumer of this process.
pub type Consumer = BaseConsumer<Membership>;

/// What the group told us and nobody has acted on yet.
pub struct Membership {
    topic: String,
    changes: Mutex<Vec<Change>>,
    /// At the end of the process changes are carried out where they are told.
    leaving: AtomicBool,
    health: Arc<Health>,
}

/// A change of what is ours, by partition.
#[derive(Debug)]
enum Change {
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
}

/// Why the process cannot go on as a member.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Kafka's client does not take a setting, or gave up for good.
    #[error("consume `{topic}`")]
    Kafka {
        /// The topic.
        topic: String,
        /// What Kafka's client says.
        source: KafkaError,
    },
    /// Another process has our `GROUP_INSTANCE_ID`.
    #[error("consume `{0}`: another process has taken this one's place in the group")]
    Fenced(String),
    /// A commit does not end.
    #[error("consume partitions {0:?}: a commit is under way that does not end")]
    Held(Vec<i32>),
    /// A pipeline ended that was not told to.
    #[error("consume partition {0}: its pipeline ended")]
    PipelineEnded(i32),
    /// A record came beside its partition's queue, so that nobody would store it.
    #[error("consume partition {0}: a record came beside its queue")]
    Stray(i32),
    /// The system gave no thread.
    #[error("start a thread for partition {partition}")]
    Thread {
        /// The Kafka partition.
        partition: i32,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Why a member left its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It was told to.
    Told,
    /// Nobody knows what became of a commit.
    Unsure,
}

/// Takes part in the group until `shutdown`, then finishes, commits and leaves it.
/// Blocks: it has a thread of its own.
///
/// # Errors
/// What only a new start of the process can mend.
pub fn take_part(
    config: &Config,
    shared: &Arc<Shared>,
    tracks: &Arc<Tracks>,
    shutdown: &CancellationToken,
) -> Result<(), GroupError> {
    let mut pauses = Backoff::new(JOIN_PAUSES.0, JOIN_PAUSES.1);
    loop {
        let since = Instant::now();
        let instance = config.group_instance.as_deref();
        let consumer = Arc::new(consumer(config, instance, &shared.health)?);
        shared.metrics.joins.inc();
        let member = Member::new(Arc::clone(shared), consumer, Arc::clone(tracks));
        if member.run(shutdown)? == Left::Told {
            return Ok(());
        }
        tracing::warn!("consume `{}`: the end of a commit is unknown; joining the group anew", shared.topic);
        pause(&shared.runtime, shutdown, pause_after(&mut pauses, since.elapsed()));
    }
}

/// How long to wait after a member that lasted for `lived`: longer each time that none lasts, as where Kafka
/// refuses its commits.
fn pause_after(pauses: &mut Backoff, lived: Duration) -> Duration {
    if lived >= LASTING {
        pauses.reset();
    }
    pauses.wait()
}

/// Blocks for `wait`, or until `shutdown`.
fn pause(runtime: &Handle, shutdown: &CancellationToken, wait: Duration) {
    // Inside the future, for no timer can be made outside the runtime.
    runtime.block_on(async { shutdown.run_until_cancelled(time::sleep(wait)).await });
}

/// A client that asks Kafka without being a member.
///
/// # Errors
/// A setting that Kafka's client does not take.
pub fn asker(config: &Config) -> Result<BaseConsumer, GroupError> {
    let kafka = &config.migrate.kafka;
    let asker = kafka.client(&[]).create();
    asker.map_err(|source| GroupError::Kafka { topic: kafka.topic.clone(), source })
}

/// A client that asks Kafka for the topic's settings.
///
/// # Errors
/// A setting that Kafka's client does not take.
pub fn admin(config: &Config) -> Result<Admin, GroupError> {
    let kafka = &config.migrate.kafka;
    kafka.client(&[]).create().map_err(|source| GroupError::Kafka { topic: kafka.topic.clone(), source })
}

/// Joins the group as a member that it does not know, and leaves it as soon as it is assigned
/// something or nothing: so the group assigns all partitions anew. Blocks; reads and commits nothing.
///
/// # Errors
/// A setting that Kafka's client does not take.
pub fn visit(config: &Config, health: &Arc<Health>, shutdown: &CancellationToken) -> Result<(), GroupError> {
    let topic = &config.migrate.kafka.topic;
    let guest = consumer(config, None, health)?;
    guest.subscribe(&[topic]).map_err(|source| GroupError::Kafka { topic: topic.clone(), source })?;
    let latest = Instant::now() + VISIT;
    while guest.context().changes().is_empty() && Instant::now() < latest && !shutdown.is_cancelled() {
        let _served = guest.poll(POLL);
    }
    guest.context().answer_at_once(&guest, []);
    Ok(())
}

/// A consumer that has not joined its group.
pub(crate) fn consumer(
    config: &Config,
    instance: Option<&str>,
    health: &Arc<Health>,
) -> Result<Consumer, GroupError> {
    let kafka = &config.migrate.kafka;
    let queued = queued_kib(config.migrate.partitions);
    let settable = [
        ("group.id", config.group.as_str()),
        ("fetch.queue.backoff.ms", "10"),
        ("queued.max.messages.kbytes", &queued),
    ];
    let mut client = kafka.client(&[&settable[..], &fixed::CONSUMER].concat());
    if let Some(instance) = instance {
        client.set("group.instance.id", instance);
    }
    let membership = Membership {
        topic: kafka.topic.clone(),
        changes: Mutex::default(),
        leaving: AtomicBool::new(false),
        health: Arc::clone(health),
    };
    client
        .create_with_context(membership)
        .map_err(|source| GroupError::Kafka { topic: kafka.topic.clone(), source })
}

/// What may wait in the queue of each partition, so that all together are bounded.
fn queued_kib(partitions: NonZeroU16) -> String {
    const ALL_KIB: u32 = 64 << 10;
    (ALL_KIB / u32::from(partitions.get())).clamp(1 << 10, 16 << 10).to_string()
}

impl Membership {
    fn changes(&self) -> MutexGuard<'_, Vec<Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<i32> {
        let ours = list.elements_for_topic(&self.topic);
        ours.iter().map(TopicPartitionListElem::partition).collect()
    }

    /// Answers what was noted, then `more`, and from here on every change where it is told: Kafka
    /// waits for an answer before it lets a member go.
    fn answer_at_once(&self, consumer: &Consumer, more: impl IntoIterator<Item = Change>) {
        self.leaving.store(true, Ordering::Release);
        let noted = std::mem::take(&mut *self.changes());
        for change in noted.into_iter().chain(more) {
            let answered = match change {
                Change::Assigned(_) => consumer.incremental_assign(&TopicPartitionList::new()),
                Change::Revoked(partitions) => consumer.incremental_unassign(&list(&self.topic, &partitions)),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "leave the group");
            }
        }
    }
}

/// Seeks to `from` in partition `kp`, whose queue then gives an error instead of records if the record before
/// `from`, of this leader `epoch`, was truncated.
///
/// # Errors
/// The client did not get to it in time.
pub(crate) fn seek<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    kp: i32,
    from: NextOffset,
    epoch: i32,
) -> KafkaResult<()> {
    let until = Instant::now() + ASK_TIMEOUT;
    loop {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, kp, KafkaOffset::Offset(from.to_i64()))?;
        librdkafka::set_leader_epoch(&list, topic, kp, epoch);
        let list = consumer.seek_partitions(list, ASK_TIMEOUT)?;
        match list.elements().first().map(TopicPartitionListElem::error) {
            // Its fetcher is not started yet: that is done by another thread.
            Some(Err(_)) if Instant::now() < until => drop(consumer.poll(POLL)),
            Some(Err(error)) => return Err(error),
            Some(Ok(())) | None => return Ok(()),
        }
    }
}

fn list(topic: &str, partitions: &[i32]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for kp in partitions {
        list.add_partition(topic, *kp);
    }
    list
}

impl ClientContext for Membership {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // Brokers that come and go are told by `error`, once.
        tracing::debug!("librdkafka: {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.health.kafka_away();
        } else {
            tracing::debug!("librdkafka: {error}: {reason}");
        }
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, consumer: &Consumer, told: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = told == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Acquire) {
            let done = if assigned {
                consumer.incremental_assign(list)
            } else {
                consumer.incremental_unassign(list)
            };
            if let Err(error) = done {
                tracing::debug!(%error, "leave the group");
            }
            return;
        }
        let partitions = self.partitions(list);
        let change = if assigned { Change::Assigned(partitions) } else { Change::Revoked(partitions) };
        self.changes().push(change);
    }
}

/// How far the partitions of this process are.
#[derive(Default)]
pub struct Tracks(Mutex<BTreeMap<i32, Arc<Track>>>);

impl Tracks {
    /// All of the moment, by partition.
    pub fn all(&self) -> BTreeMap<i32, Arc<Track>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<Track>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The member: its consumer and its pipelines.
struct Member {
    shared: Arc<Shared>,
    consumer: Arc<Consumer>,
    tracks: Arc<Tracks>,
    pipelines: BTreeMap<i32, Pipeline>,
    /// Assigned, and not yet taken, for Kafka has not told from where on.
    opening: Option<Vec<i32>>,
    /// Of these, those that the client is not assigned yet, for no broker tells of their logs; the first has
    /// waited longest.
    waiting: VecDeque<Waiting>,
    /// When a broker is asked about them again.
    ask_again: Instant,
    /// Revoked, and not yet let go; and when they are at the latest.
    releasing: Option<(Vec<i32>, Instant)>,
}

/// A partition of ours without a pipeline.
struct Waiting {
    kp: i32,
    /// Member id under which it was assigned.
    member: Arc<str>,
}

/// What `ask` told of each partition, and the partitions of which it did not.
fn told<T, U>(
    partitions: impl IntoIterator<Item = (i32, T)>,
    mut ask: impl FnMut(i32, T) -> KafkaResult<U>,
) -> (BTreeMap<i32, U>, Vec<i32>) {
    let (mut told, mut silent) = (BTreeMap::new(), Vec::new());
    for (kp, known) in partitions {
        match ask(kp, known) {
            Ok(answer) => drop(told.insert(kp, answer)),
            Err(error) => {
                tracing::debug!(%error, "read where the log of partition {kp} begins and ends");
                silent.push(kp);
            }
        }
    }
    (told, silent)
}

impl Member {
    /// A member without partitions.
    fn new(shared: Arc<Shared>, consumer: Arc<Consumer>, tracks: Arc<Tracks>) -> Self {
        Self {
            shared,
            consumer,
            tracks,
            pipelines: BTreeMap::new(),
            opening: None,
            waiting: VecDeque::new(),
            ask_again: Instant::now(),
            releasing: None,
        }
    }

    fn run(mut self, shutdown: &CancellationToken) -> Result<Left, GroupError> {
        self.consumer.subscribe(&[&self.shared.topic]).map_err(|error| self.failed(error))?;
        let mut outcome = Ok(None);
        while matches!(outcome, Ok(None)) && !shutdown.is_cancelled() {
            outcome = self.step();
        }
        self.leave(shutdown)?;
        outcome.map(|left| left.unwrap_or(Left::Told))
    }

    fn step(&mut self) -> Result<Option<Left>, GroupError> {
        self.poll()?;
        let changes = std::mem::take(&mut *self.consumer.context().changes());
        for change in changes {
            match change {
                Change::Assigned(partitions) => self.opening = Some(partitions),
                Change::Revoked(partitions) => self.begin_release(partitions),
            }
        }
        if let Some(left) = self.open()? {
            return Ok(Some(left));
        }
        if let Some(left) = self.end_release()? {
            return Ok(Some(left));
        }
        let ended =
            self.pipelines.iter().find(|(kp, pipeline)| pipeline.has_ended() && !self.is_releasing(**kp));
        match ended {
            Some((kp, _)) => self.end(*kp).map(Some),
            None => Ok(None),
        }
    }

    /// Looks how a pipeline ended that nobody told to.
    fn end(&mut self, kp: i32) -> Result<Left, GroupError> {
        match self.pipelines.remove(&kp).and_then(Pipeline::ended) {
            Some(Ended::Unsure) => Ok(Left::Unsure),
            Some(Ended::Fenced) => Err(GroupError::Fenced(self.shared.topic.clone())),
            Some(Ended::Told) | None => Err(GroupError::PipelineEnded(kp)),
        }
    }

    fn poll(&self) -> Result<(), GroupError> {
        match self.consumer.poll(POLL) {
            None => Ok(()),
            Some(Ok(record)) => Err(GroupError::Stray(rdkafka::Message::partition(&record))),
            Some(Err(KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId))) => {
                Err(GroupError::Fenced(self.shared.topic.clone()))
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => Err(self.failed(error)),
            // Brokers that come and go; whether Kafka answers is asked each second.
            Some(Err(error)) => {
                tracing::debug!(%error, "poll kafka");
                Ok(())
            }
        }
    }

    /// Takes what was assigned, once Kafka tells from where on.
    fn open(&mut self) -> Result<Option<Left>, GroupError> {
        let Some(partitions) = &self.opening else { return self.open_late() };
        let (found, silent) = match self.find(partitions, ASK_TIMEOUT) {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "read committed offsets");
                self.shared.health.kafka_away();
                return Ok(None);
            }
        };
        self.opening = None;
        // Before the assignment is answered, so that no later one can have begun.
        let member = Arc::from(librdkafka::member_id(&self.consumer));
        silent.into_iter().for_each(|kp| self.wait(Waiting { kp, member: Arc::clone(&member) }));
        if let Some(left) = self.take(found, &member)? {
            return Ok(Some(left));
        }
        self.shared.health.well(Concern::Group);
        self.shared.health.forget_commits(|kp| self.pipelines.contains_key(&kp));
        self.shared.assigned.notify_one();
        Ok(None)
    }

    /// Takes the partition that has waited longest, if a broker tells by now where its log begins and ends.
    fn open_late(&mut self) -> Result<Option<Left>, GroupError> {
        // The answer to a revocation comes first: to the client, an assignment means that none was lost.
        let revoked = self.releasing.is_some() || self.consumer.assignment_lost();
        if revoked || Instant::now() < self.ask_again {
            return Ok(None);
        }
        let Some(waiting) = self.waiting.pop_front() else { return Ok(None) };
        let found = self.find(&[waiting.kp], ASK_LATE).map(|(found, _)| found).unwrap_or_default();
        if found.is_empty() {
            self.wait(waiting);
            return Ok(None);
        }
        self.shared.health.well(Concern::Partition(waiting.kp));
        self.take(found, &waiting.member)
    }

    /// Leaves a partition for later, behind those that wait already.
    fn wait(&mut self, waiting: Waiting) {
        let reason = "no broker tells where its log begins and ends: has it a leader? it is asked for again";
        self.shared.health.trouble(Concern::Partition(waiting.kp), reason);
        self.waiting.push_back(waiting);
        self.ask_again = Instant::now() + ASK_LATE;
    }

    /// Those of `partitions` that have waited for a broker, which are not assigned in the client, wait no longer.
    fn wait_no_longer(&mut self, partitions: &[i32]) -> Vec<i32> {
        let (ended, left) =
            self.waiting.drain(..).partition::<VecDeque<_>, _>(|waiting| partitions.contains(&waiting.kp));
        self.waiting = left;
        let ended: Vec<_> = ended.into_iter().map(|waiting| waiting.kp).collect();
        ended.iter().for_each(|kp| self.shared.health.well(Concern::Partition(*kp)));
        ended
    }

    /// Starts a pipeline for each partition that was found.
    fn take(&mut self, found: BTreeMap<i32, Found>, member: &Arc<str>) -> Result<Option<Left>, GroupError> {
        // Queues first, so that no record comes beside them.
        let topic = &self.shared.topic;
        let split = |kp| self.consumer.split_partition_queue(topic, kp).ok_or(GroupError::Stray(kp));
        let queues = found.keys().map(|kp| Ok((*kp, split(*kp)?))).collect::<Result<Vec<_>, _>>()?;
        let mut list = TopicPartitionList::new();
        for (kp, found) in &found {
            let from = found.committed.as_ref().map_or(found.low, |(from, _)| *from);
            list.add_partition_offset(topic, *kp, KafkaOffset::Offset(from.to_i64()))
                .map_err(|error| self.failed(error))?;
        }
        self.consumer.incremental_assign(&list).map_err(|error| self.failed(error))?;
        if let Err(error) = self.validate(&found) {
            tracing::warn!(%error, "validate the committed offsets of partitions {:?}", found.keys());
            return Ok(Some(Left::Unsure));
        }
        for ((kp, queue), found) in queues.into_iter().zip(found.into_values()) {
            let number = u16::try_from(kp).map_err(|_| GroupError::Stray(kp))?;
            let pipeline = Pipeline::start(&self.shared, &self.consumer, member, queue, number, found)
                .map_err(|source| GroupError::Thread { partition: kp, source })?;
            self.tracks.lock().insert(kp, Arc::clone(&pipeline.track));
            self.pipelines.insert(kp, pipeline);
        }
        self.count();
        Ok(None)
    }

    /// Has the offsets validated by the leader epochs of the records before them: where a log was truncated
    /// below, its queue gives an error instead of records. librdkafka validates where it seeks, and not where
    /// it is assigned.
    ///
    /// # Errors
    /// The client did not get to it in time: the group is joined again, as after any doubt.
    fn validate(&self, found: &BTreeMap<i32, Found>) -> KafkaResult<()> {
        let topic = &self.shared.topic;
        for (kp, found) in found {
            let Some((from, intent)) = found.intent() else { continue };
            let Some(epoch) = intent.log.epoch else { continue };
            seek(&self.consumer, topic, *kp, from, epoch)?;
        }
        Ok(())
    }

    /// What is committed of each partition, and what its log holds; and the partitions of whose log no broker
    /// told in time, such as those without a leader.
    fn find(&self, partitions: &[i32], timeout: Duration) -> KafkaResult<(BTreeMap<i32, Found>, Vec<i32>)> {
        if partitions.is_empty() {
            return Ok((BTreeMap::new(), Vec::new()));
        }
        let topic = self.shared.topic_watch.id().map_err(KafkaError::AdminOp)?;
        let answer = self.consumer.committed_offsets(list(&self.shared.topic, partitions), ASK_TIMEOUT)?;
        let committed = answer.elements();
        let committed =
            committed.iter().map(|element| Ok((element.partition(), commit::committed(element)?)));
        let committed = committed.collect::<KafkaResult<Vec<_>>>()?;
        let until = Instant::now() + timeout;
        Ok(told(committed, |kp, committed| {
            let left = until.saturating_duration_since(Instant::now()).max(ASK_LATE);
            let (low, end) = self.consumer.fetch_watermarks(&self.shared.topic, kp, left)?;
            Ok(Found { committed, low: NextOffset::new(low), end: NextOffset::new(end), topic })
        }))
    }

    fn begin_release(&mut self, partitions: Vec<i32>) {
        // A lost partition may have a new owner already: what we commit could undo his.
        let lost = self.consumer.assignment_lost();
        for pipeline in partitions.iter().filter_map(|kp| self.pipelines.get(kp)) {
            if lost {
                pipeline.give_up();
            } else {
                pipeline.stop();
            }
        }
        let how = if lost { "lost" } else { "revoked" };
        tracing::info!("partitions {partitions:?} {how}");
        let unassigned = self.wait_no_longer(&partitions);
        let partitions = partitions.into_iter().filter(|kp| !unassigned.contains(kp)).collect();
        self.releasing = Some((partitions, Instant::now() + RELEASE));
    }

    /// Lets revoked partitions go once nothing of them is under way.
    fn end_release(&mut self) -> Result<Option<Left>, GroupError> {
        let Some((partitions, latest)) = &self.releasing else { return Ok(None) };
        let pipelines = partitions.iter().filter_map(|kp| self.pipelines.get(kp));
        let held: Vec<_> = pipelines.filter(|pipeline| !pipeline.may_let_go()).collect();
        if !held.is_empty() {
            let late = Instant::now().saturating_duration_since(*latest);
            if late > HELD {
                return Err(GroupError::Held(partitions.clone()));
            }
            if !late.is_zero() {
                held.iter().for_each(|pipeline| pipeline.give_up());
            }
            return Ok(None);
        }
        let list = list(&self.shared.topic, partitions);
        for kp in partitions.clone() {
            // Not let go: a commit of this member may still arrive.
            match self.pipelines.remove(&kp).map(Pipeline::ended) {
                Some(Some(Ended::Unsure)) => return Ok(Some(Left::Unsure)),
                Some(Some(Ended::Fenced)) => return Err(GroupError::Fenced(self.shared.topic.clone())),
                Some(None) => return Err(GroupError::PipelineEnded(kp)),
                Some(Some(Ended::Told)) | None => {}
            }
            self.tracks.lock().remove(&kp);
            self.shared.metrics.forget(kp);
        }
        self.releasing = None;
        self.consumer.incremental_unassign(&list).map_err(|error| self.failed(error))?;
        self.shared.health.forget_commits(|kp| self.pipelines.contains_key(&kp));
        self.count();
        Ok(None)
    }

    fn is_releasing(&self, kp: i32) -> bool {
        self.releasing.as_ref().is_some_and(|(partitions, _)| partitions.contains(&kp))
    }

    /// Finishes what is being inserted, then leaves the group.
    fn leave(mut self, shutdown: &CancellationToken) -> Result<(), GroupError> {
        self.pipelines.values().for_each(Pipeline::stop);
        let latest = Instant::now() + RELEASE;
        // Changes are only noted meanwhile: a partition let go while its batch is on the way
        // would be read again by its next owner from before that batch.
        while self.pipelines.values().any(|pipeline| !pipeline.may_let_go()) {
            let late = Instant::now().saturating_duration_since(latest);
            if !late.is_zero() {
                self.pipelines.values().for_each(Pipeline::give_up);
                // The end of the process ends what is under way.
                if shutdown.is_cancelled() && self.pipelines.values().all(Pipeline::has_ended) {
                    break;
                }
            }
            if late > HELD {
                return Err(GroupError::Held(self.pipelines.keys().copied().collect()));
            }
            let _served = self.consumer.poll(POLL);
        }
        let waiting: Vec<_> = self.waiting.iter().map(|waiting| waiting.kp).collect();
        self.wait_no_longer(&waiting);
        for kp in std::mem::take(&mut self.pipelines).into_keys() {
            self.tracks.lock().remove(&kp);
            self.shared.metrics.forget(kp);
        }
        self.count();

        let opening = self.opening.take().map(Change::Assigned);
        let releasing = self.releasing.take().map(|(partitions, _)| Change::Revoked(partitions));
        self.consumer.context().answer_at_once(&self.consumer, opening.into_iter().chain(releasing));
        // Dropping the last handle of the consumer leaves the group.
        Ok(())
    }

    fn count(&self) {
        self.shared.metrics.partitions_owned.set(self.pipelines.len() as i64);
    }

    fn failed(&self, source: KafkaError) -> GroupError {
        GroupError::Kafka { topic: self.shared.topic.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use ::runtime::admin::Readiness;
    use tokio::runtime::Builder;

    use super::*;
    use crate::partition::Part;

    /// Long enough for a member that does not wait.
    const AT_ONCE: Duration = Duration::from_millis(500);
    const DEADLINE: Duration = Duration::from_secs(30);

    /// A member of a group that never answers, with a pipeline whose commit is under way.
    fn committing(runtime: Handle) -> (Member, Arc<()>) {
        let part = Part::unanswered(runtime);
        let mut member = Member::new(part.shared(), part.consumer(), Arc::default());
        let (pipeline, commit) = Pipeline::ended_while_committing();
        member.pipelines.insert(0, pipeline);
        (member, commit)
    }

    #[test]
    fn the_group_is_left_only_once_no_commit_is_under_way() {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        let (member, commit) = committing(runtime.handle().clone());
        let (left, leaving) = mpsc::channel();
        let thread = thread::spawn(move || left.send(member.leave(&CancellationToken::new()).is_ok()));
        assert!(leaving.recv_timeout(AT_ONCE).is_err(), "a commit under way could arrive after the next one");
        drop(commit);
        assert_eq!(leaving.recv_timeout(DEADLINE), Ok(true));
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_revoked_partition_is_let_go_only_once_no_commit_of_it_is_under_way() {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        let (mut member, commit) = committing(runtime.handle().clone());
        member.begin_release(vec![0]);
        let until = Instant::now() + AT_ONCE;
        while Instant::now() < until {
            assert!(matches!(member.end_release(), Ok(None)) && member.releasing.is_some());
        }
        drop(commit);
        // The pipeline ended without knowing what became of its commit.
        assert!(matches!(member.end_release(), Ok(Some(Left::Unsure))));
    }

    #[test]
    fn the_thread_that_polls_pauses_though_it_is_none_of_the_runtimes() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let before = Instant::now();
        pause(runtime.handle(), &CancellationToken::new(), AT_ONCE);
        assert!(before.elapsed() >= AT_ONCE);
        let told = CancellationToken::new();
        told.cancel();
        pause(runtime.handle(), &told, DEADLINE);
        assert!(before.elapsed() < DEADLINE);
    }

    #[test]
    fn a_group_is_joined_ever_more_slowly_while_no_member_lasts() {
        let mut pauses = Backoff::new(JOIN_PAUSES.0, JOIN_PAUSES.1);
        let short = LASTING.mul_f64(0.5);
        let waits: Vec<_> = (0..7).map(|_| pause_after(&mut pauses, short)).collect();
        assert!(waits[0] <= JOIN_PAUSES.0, "{waits:?}");
        assert!(waits[5] >= JOIN_PAUSES.1 / 2 && waits[6] >= JOIN_PAUSES.1 / 2, "{waits:?}");
        assert!(pause_after(&mut pauses, LASTING) <= JOIN_PAUSES.0);
    }

    #[test]
    fn a_partition_without_a_leader_keeps_no_other_waiting() {
        let ask = |kp, known| match kp {
            1 => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable)),
            _ => Ok(known),
        };
        let found = told([(0, "a"), (1, "b"), (2, "c")], ask);
        assert_eq!(found, (BTreeMap::from([(0, "a"), (2, "c")]), vec![1]));
    }

    #[test]
    fn partitions_that_wait_for_a_broker_are_named_and_asked_for_in_turn_until_they_are_revoked() {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        let part = Part::unanswered(runtime.handle().clone());
        let mut member = Member::new(part.shared(), part.consumer(), Arc::default());
        [1, 2].into_iter().for_each(|kp| member.wait(Waiting { kp, member: Arc::default() }));
        let named = |kp: i32| {
            let Readiness::Not(reason) = part.shared().health.readiness() else { panic!("kafka is away") };
            reason.contains(&format!("partition {kp}: no broker tells"))
        };
        assert!(named(1) && named(2));
        member.ask_again = Instant::now();
        assert!(matches!(member.open_late(), Ok(None)));
        assert_eq!(member.waiting.iter().map(|waiting| waiting.kp).collect::<Vec<_>>(), [2, 1]);
        member.begin_release(vec![0, 1]);
        assert!(!named(1) && named(2));
        let releasing = member.releasing.as_ref().map(|(partitions, _)| partitions.clone());
        assert_eq!(releasing, Some(vec![0]), "the client can let go only what it is assigned");
    }
}
