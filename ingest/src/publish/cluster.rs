//! Whether Kafka can be reached, and how many partitions the topic has.
//!
//! A thread of its own asks, since librdkafka's question blocks: once a minute while
//! all is well, with backoff while it is not, and at once when somebody doubts. A
//! change is logged once, not each try.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use runtime::backoff::Backoff;
use tokio::sync::SetOnce;

use super::config::KafkaConfig;
use super::delivery::Producer;

/// How often the number of partitions is looked up while all is well.
const REFRESH: Duration = Duration::from_secs(60);
/// How long Kafka may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Shortest and longest wait between tries while it is away or in doubt.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long Kafka counts as away after it refused a record; then one may try again.
const REFUSES_FOR: Duration = Duration::from_secs(5);

/// What is known of Kafka.
pub(super) struct Cluster {
    brokers: String,
    topic: String,
    /// Of the topic; 0 until Kafka was reached for the first time.
    partitions: AtomicU32,
    state: Mutex<State>,
    up: IntGauge,
    /// What Kafka's client said since it was last reached.
    refusal: Mutex<Option<Handshake>>,
    /// When it last refused a record, and why.
    refused_record: Mutex<Option<(Instant, RDKafkaErrorCode)>>,
    /// Why Kafka's client never sends again.
    broken: SetOnce<String>,
    asker: OnceLock<Thread>,
    doubted: AtomicBool,
    stopped: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    Up,
    Unreachable,
    Refused(Handshake),
    /// It refuses records, for a reason that sending them again does not mend.
    Refusing(RDKafkaErrorCode),
    TopicMissing,
    /// Its client never sends again.
    Broken,
}

/// What fails before Kafka talks to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handshake {
    /// It does not take the name and the password.
    Login,
    /// Its certificate is not trusted, or it speaks no TLS.
    Tls,
}

impl Handshake {
    fn of(error: &KafkaError) -> Option<Self> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication) => Some(Self::Login),
            Some(RDKafkaErrorCode::SSL) => Some(Self::Tls),
            _ => None,
        }
    }
}

impl Cluster {
    /// Nothing is known yet, and nobody asks before [`watch`].
    pub(super) fn new(config: &KafkaConfig, up: IntGauge) -> Self {
        Self {
            brokers: config.brokers.clone(),
            topic: config.topic.clone(),
            partitions: AtomicU32::new(0),
            state: Mutex::new(State::Unknown),
            up,
            refusal: Mutex::default(),
            refused_record: Mutex::default(),
            broken: SetOnce::new(),
            asker: OnceLock::new(),
            doubted: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// How many partitions the topic has; 0 while that was never learnt.
    pub(super) fn partitions(&self) -> u32 {
        self.partitions.load(Ordering::Acquire)
    }

    /// Takes what is remembered of an earlier process, until Kafka itself says it.
    pub(super) fn remembered(&self, partitions: u32) {
        let _known = self.partitions.compare_exchange(0, partitions, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether Kafka was reached last time.
    pub(super) fn is_up(&self) -> bool {
        *self.state() == State::Up
    }

    /// Whether Kafka was not reached last time, or refused a record; while nothing is known yet, it was not asked.
    pub(super) fn is_down(&self) -> bool {
        !matches!(*self.state(), State::Unknown | State::Up)
    }

    /// A record had no acknowledgement in time: Kafka counts as away until it answers again.
    pub(super) fn timed_out(&self) {
        self.set(State::Unreachable);
    }

    /// A record failed. If that will be so of the next one too, Kafka counts as away for a while:
    /// it may tell of a topic that we may not write to.
    pub(super) fn record_failed(&self, code: Option<RDKafkaErrorCode>) {
        use RDKafkaErrorCode::{ClusterAuthorizationFailed, Fatal, TopicAuthorizationFailed};
        match code {
            Some(code @ (TopicAuthorizationFailed | ClusterAuthorizationFailed)) => {
                *self.refused_record() = Some((Instant::now(), code));
                self.set(State::Refusing(code));
            }
            Some(Fatal) => self.set(State::Broken),
            _ => {}
        }
        self.doubt();
    }

    /// Why a record was refused of late.
    fn refusing(&self) -> Option<RDKafkaErrorCode> {
        self.refused_record().filter(|(at, _)| at.elapsed() < REFUSES_FOR).map(|(_, code)| code)
    }

    fn refused_record(&self) -> MutexGuard<'_, Option<(Instant, RDKafkaErrorCode)>> {
        self.refused_record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something failed that would not with Kafka there: asks again soon.
    pub(super) fn doubt(&self) {
        if !self.doubted.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Kafka's client has met an error of its own.
    pub(super) fn client_says(&self, error: &KafkaError) {
        if let Some(failed) = Handshake::of(error) {
            *self.refusal() = Some(failed);
        }
        self.doubt();
    }

    /// Waits until Kafka's client has met an error after which it never sends again; says which.
    pub(super) async fn broken(&self) -> String {
        self.broken.wait().await.clone()
    }

    fn refusal(&self) -> MutexGuard<'_, Option<Handshake>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(asker) = self.asker.get() {
            asker.unpark();
        }
    }

    /// Waits, after a good answer until it is doubted or old, else for `wait`. Returns
    /// false when it is time to end.
    fn pause(&self, well: bool, wait: Duration) -> bool {
        let start = Instant::now();
        loop {
            let in_doubt = self.doubted.load(Ordering::Acquire);
            let whole = if well && !in_doubt { REFRESH } else { wait };
            let left = whole.saturating_sub(start.elapsed());
            let stopped = self.stopped.load(Ordering::Acquire);
            if stopped || left.is_zero() {
                return !stopped;
            }
            thread::park_timeout(left);
        }
    }

    /// Whether Kafka can be reached; says why not.
    pub(super) fn reached(&self) -> Result<(), String> {
        let state = *self.state();
        if state == State::Up { Ok(()) } else { Err(self.describe(state)) }
    }

    fn describe(&self, state: State) -> String {
        let Self { brokers, topic, .. } = self;
        match state {
            State::Unknown => format!("kafka at {brokers} is not reached yet"),
            State::Up => {
                format!("kafka at {brokers} is reached, topic `{topic}` has {} partitions", self.partitions())
            }
            State::Unreachable => format!("kafka at {brokers} does not answer"),
            State::Refused(Handshake::Login) => {
                format!("kafka at {brokers} refuses the login: authentication failed")
            }
            State::Refused(Handshake::Tls) => format!(
                "kafka at {brokers}: the TLS handshake failed; KAFKA_OPT_ssl.ca.location names whom to trust"
            ),
            State::Refusing(code) => format!("kafka at {brokers} refuses records: {code}"),
            State::TopicMissing => format!("kafka at {brokers} has no topic `{topic}`"),
            State::Broken => "kafka's client is broken, and mended by a new start".to_owned(),
        }
    }

    /// Asks Kafka once. Returns whether all is well.
    fn ask(&self, producer: &Producer) -> bool {
        self.doubted.store(false, Ordering::Release);
        if let Some((_, reason)) = producer.client().fatal_error() {
            self.set(State::Broken);
            let _said_before = self.broken.set(reason);
            return false;
        }
        let answer = producer.client().fetch_metadata(Some(&self.topic), ASK_TIMEOUT);
        let state = match &answer {
            Ok(metadata) => {
                *self.refusal() = None;
                match metadata
                    .topics()
                    .iter()
                    .find(|topic| topic.name() == self.topic)
                    .map(|t| t.partitions().len())
                {
                    None | Some(0) => State::TopicMissing,
                    Some(count) => {
                        let up = self.learnt(count as u32);
                        self.refusing().map_or(up, State::Refusing)
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "ask kafka for the topic");
                self.refusal().map_or(State::Unreachable, State::Refused)
            }
        };
        self.set(state);
        state == State::Up
    }

    fn learnt(&self, partitions: u32) -> State {
        let before = self.partitions.swap(partitions, Ordering::AcqRel);
        if before != 0 && before != partitions {
            tracing::info!(before, partitions, "the number of partitions has changed");
        }
        State::Up
    }

    fn set(&self, state: State) {
        let before = {
            let mut now = self.state();
            // For ever.
            if *now == State::Broken {
                return;
            }
            std::mem::replace(&mut *now, state)
        };
        self.up.set(i64::from(state == State::Up));
        match (before == state, state) {
            (true, _) => {}
            // The edge says it, and ends.
            (false, State::Broken) => {}
            (false, State::Up) => tracing::info!("{}", self.describe(state)),
            (false, _) => tracing::warn!("{}; trying again", self.describe(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the thread that asks, when dropped.
pub(super) struct Watch(Arc<Cluster>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.wake();
    }
}

/// Starts the thread that asks.
pub(super) fn watch(producer: Weak<Producer>, cluster: &Arc<Cluster>) -> io::Result<Watch> {
    let asking = Arc::clone(cluster);
    let ask = move || {
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        while let Some(producer) = producer.upgrade() {
            let well = asking.ask(&producer);
            drop(producer);
            if well {
                backoff.reset();
            }
            if !asking.pause(well, backoff.wait()) {
                break;
            }
        }
    };
    let thread = thread::Builder::new().name("kafka-watch".to_owned()).spawn(ask)?;
    let _first = cluster.asker.set(thread.thread().clone());
    Ok(Watch(Arc::clone(cluster)))
}
