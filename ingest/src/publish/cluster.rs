//! Whether Kafka can be reached, and how many partitions the topic has.
//!
//! A separate thread checks Kafka by fetching the metadata of the topic, because the fetch blocks. While Kafka is
//! reachable, the thread checks once a minute, and earlier if a record fails, a request waits too long for its records,
//! or Kafka's client reports an error. While Kafka is unreachable, the thread checks with backoff. Each change of the
//! state is logged once; a failed fetch is logged only at debug level.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use runtime::backoff::RetryPolicy;
use tokio::sync::SetOnce;

use super::config::KafkaConfig;
use super::kafka::Producer;

/// The time between two fetches of the metadata while Kafka is reachable.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// How long Kafka may take to return the metadata.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// The waits between two fetches after a failure.
const METADATA_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_millis(100), Duration::from_secs(5));

/// How long Kafka counts as unreachable after it refused a record with an authorization error. After this time, a
/// successful check makes Kafka count as reachable again, so the next record is sent to Kafka.
const REFUSAL_TIME: Duration = Duration::from_secs(5);

/// What is known about Kafka.
pub(super) struct Cluster {
    brokers: String,
    topic: String,
    /// The number of partitions of the topic, from Kafka or from the spool; 0 while the number is not known.
    partitions: AtomicU32,
    state: Mutex<State>,
    up: IntGauge,
    /// The last handshake failure that Kafka's client has reported since Kafka was last reached.
    handshake_failure: Mutex<Option<HandshakeFailure>>,
    /// When Kafka last refused a record with an authorization error, and the code of the error.
    refused_record: Mutex<Option<(Instant, RDKafkaErrorCode)>>,
    /// The fatal error of Kafka's client, if there is one. After a fatal error, the client never sends again.
    fatal_error: SetOnce<String>,
    watch_thread: OnceLock<Thread>,
    check_requested: AtomicBool,
    stopped: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    Up,
    Unreachable,
    HandshakeFailed(HandshakeFailure),
    /// Kafka has refused a record with this authorization error, and probably refuses all other records too.
    RecordsRefused(RDKafkaErrorCode),
    TopicMissing,
    /// Kafka's client has a fatal error and cannot send again.
    FatalError,
}

/// What failed while a connection to a broker was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HandshakeFailure {
    /// The login failed, for example because the broker does not accept the user name or the password.
    Authentication,
    /// The TLS handshake failed, for example because the certificate of the broker is not trusted or the broker does
    /// not use TLS.
    Tls,
}

impl HandshakeFailure {
    fn of(error: &KafkaError) -> Option<Self> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication) => Some(Self::Authentication),
            Some(RDKafkaErrorCode::SSL) => Some(Self::Tls),
            _ => None,
        }
    }
}

impl Cluster {
    /// A cluster in the state `Unknown`, which is not checked until the thread of [`watch`] runs.
    pub(super) fn new(config: &KafkaConfig, up: IntGauge) -> Self {
        Self {
            brokers: config.brokers.clone(),
            topic: config.topic.clone(),
            partitions: AtomicU32::new(0),
            state: Mutex::new(State::Unknown),
            up,
            handshake_failure: Mutex::default(),
            refused_record: Mutex::default(),
            fatal_error: SetOnce::new(),
            watch_thread: OnceLock::new(),
            check_requested: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// The number of partitions of the topic; 0 while it is not known.
    pub(super) fn partitions(&self) -> u32 {
        self.partitions.load(Ordering::Acquire)
    }

    /// Uses the number of partitions that an earlier process stored in the spool, until Kafka reports the number.
    pub(super) fn restore_partitions(&self, partitions: u32) {
        let _known = self.partitions.compare_exchange(0, partitions, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether Kafka counts as reachable: the last `check` returned true, and no record has since timed out, been
    /// refused with an authorization error, or failed with a fatal error.
    pub(super) fn is_up(&self) -> bool {
        *self.state() == State::Up
    }

    /// Whether Kafka counts as unreachable: the last `check` returned false, or a record has since timed out, been
    /// refused with an authorization error, or failed with a fatal error. In the state `Unknown`, both `is_up` and
    /// `is_down` return false.
    pub(super) fn is_down(&self) -> bool {
        !matches!(*self.state(), State::Unknown | State::Up)
    }

    /// Notes that a record was not acknowledged in time: Kafka counts as unreachable until a check succeeds.
    pub(super) fn record_timed_out(&self) {
        // If Kafka already counts as unreachable, the current state is kept, because it names the reason more exactly.
        if !self.is_down() {
            self.set(State::Unreachable);
        }
    }

    /// Notes that a record failed. After an authorization error, Kafka counts as unreachable for [`REFUSAL_TIME`], even
    /// if the metadata can be fetched: Kafka can allow a client to read the metadata and forbid it to write records.
    /// After a fatal error, Kafka counts as unreachable until the process ends.
    pub(super) fn record_failed(&self, code: Option<RDKafkaErrorCode>) {
        use RDKafkaErrorCode::{ClusterAuthorizationFailed, Fatal, TopicAuthorizationFailed};
        match code {
            Some(code @ (TopicAuthorizationFailed | ClusterAuthorizationFailed)) => {
                *self.refused_record() = Some((Instant::now(), code));
                self.set(State::RecordsRefused(code));
            }
            Some(Fatal) => self.set(State::FatalError),
            _ => {}
        }
        self.request_check();
    }

    /// The authorization error with which Kafka refused a record within the last [`REFUSAL_TIME`].
    fn recent_refusal(&self) -> Option<RDKafkaErrorCode> {
        self.refused_record().filter(|(at, _)| at.elapsed() < REFUSAL_TIME).map(|(_, code)| code)
    }

    fn refused_record(&self) -> MutexGuard<'_, Option<(Instant, RDKafkaErrorCode)>> {
        self.refused_record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests an early check. Called after a failure, because the failure may mean that Kafka is unreachable.
    pub(super) fn request_check(&self) {
        if !self.check_requested.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Handles an error of Kafka's client that is not about a single record.
    pub(super) fn client_error(&self, error: &KafkaError) {
        if let Some(failure) = HandshakeFailure::of(error) {
            *self.handshake_failure() = Some(failure);
        }
        self.request_check();
    }

    /// Waits until Kafka's client has a fatal error, after which the client never sends again; returns the error.
    pub(super) async fn fatal_error(&self) -> String {
        self.fatal_error.wait().await.clone()
    }

    fn handshake_failure(&self) -> MutexGuard<'_, Option<HandshakeFailure>> {
        self.handshake_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(thread) = self.watch_thread.get() {
            thread.unpark();
        }
    }

    /// Pauses between two checks: for [`REFRESH_INTERVAL`] if the last check found Kafka `reachable`, for `wait` if it
    /// did not. If a check is requested during the pause, the pause is shortened to `wait`. Returns false when the
    /// thread must stop.
    fn pause(&self, reachable: bool, wait: Duration) -> bool {
        let start = Instant::now();
        loop {
            let requested = self.check_requested.load(Ordering::Acquire);
            let whole = if reachable && !requested { REFRESH_INTERVAL } else { wait };
            let left = whole.saturating_sub(start.elapsed());
            let stopped = self.stopped.load(Ordering::Acquire);
            if stopped || left.is_zero() {
                return !stopped;
            }
            thread::park_timeout(left);
        }
    }

    /// Succeeds if Kafka can be reached; otherwise, the error is the reason.
    pub(super) fn reachable(&self) -> Result<(), String> {
        let state = *self.state();
        if state == State::Up { Ok(()) } else { Err(self.describe(state)) }
    }

    fn describe(&self, state: State) -> String {
        let Self { brokers, topic, .. } = self;
        match state {
            State::Unknown => format!("kafka at {brokers} has not been reached yet"),
            State::Up => {
                format!(
                    "kafka at {brokers} is reachable, topic `{topic}` has {} partitions",
                    self.partitions()
                )
            }
            State::Unreachable => format!("kafka at {brokers} does not answer"),
            State::HandshakeFailed(HandshakeFailure::Authentication) => {
                format!("kafka at {brokers} refuses the login: authentication failed")
            }
            State::HandshakeFailed(HandshakeFailure::Tls) => format!(
                "kafka at {brokers}: the TLS handshake failed; KAFKA_OPT_ssl.ca.location names the certificates to \
                 trust"
            ),
            State::RecordsRefused(code) => format!("kafka at {brokers} refuses records: {code}"),
            State::TopicMissing => {
                format!("kafka at {brokers} has no topic `{topic}`: run `stream-agg migrate`")
            }
            State::FatalError => {
                "kafka's client has a fatal error and cannot send again; restart the edge".to_owned()
            }
        }
    }

    /// Checks whether Kafka's client has a fatal error; if it has none, fetches the metadata once. Returns whether
    /// Kafka counts as reachable: the topic exists, and Kafka has refused no record within the last [`REFUSAL_TIME`].
    fn check(&self, producer: &Producer) -> bool {
        self.check_requested.store(false, Ordering::Release);
        if let Some((_, reason)) = producer.client().fatal_error() {
            self.set(State::FatalError);
            let _already_set = self.fatal_error.set(reason);
            return false;
        }
        let metadata = producer.client().fetch_metadata(Some(&self.topic), METADATA_TIMEOUT);
        let state = match &metadata {
            Ok(metadata) => {
                *self.handshake_failure() = None;
                match metadata
                    .topics()
                    .iter()
                    .find(|topic| topic.name() == self.topic)
                    .map(|topic| topic.partitions().len())
                {
                    None | Some(0) => State::TopicMissing,
                    Some(count) => {
                        self.set_partitions(count as u32);
                        self.recent_refusal().map_or(State::Up, State::RecordsRefused)
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot fetch the metadata of the topic");
                self.handshake_failure().map_or(State::Unreachable, State::HandshakeFailed)
            }
        };
        self.set(state);
        state == State::Up
    }

    fn set_partitions(&self, partitions: u32) {
        let before = self.partitions.swap(partitions, Ordering::AcqRel);
        if before != 0 && before != partitions {
            tracing::info!(before, partitions, "the number of partitions of the topic has changed");
        }
    }

    fn set(&self, state: State) {
        let before = {
            let mut now = self.state();
            // A fatal error is final, so no later state may replace it.
            if *now == State::FatalError {
                return;
            }
            std::mem::replace(&mut *now, state)
        };
        self.up.set(i64::from(state == State::Up));
        match (before == state, state) {
            (true, _) => {}
            // `Edge` logs the fatal error, with its reason.
            (false, State::FatalError) => {}
            (false, State::Up) => tracing::info!("{}", self.describe(state)),
            (false, _) => tracing::warn!("{}; trying again", self.describe(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops the thread of [`watch`] on drop. Does not join the thread, because the thread may be waiting for Kafka.
pub(super) struct Watch(Arc<Cluster>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.wake();
    }
}

/// Starts the thread that checks the cluster. Between two checks, the thread has only a weak reference to the client,
/// so that the thread does not keep the client alive; the thread ends when the client is dropped.
pub(super) fn watch(producer: Weak<Producer>, cluster: &Arc<Cluster>) -> io::Result<Watch> {
    let watched = Arc::clone(cluster);
    let check_repeatedly = move || {
        let mut backoff = METADATA_RETRIES.backoff();
        while let Some(producer) = producer.upgrade() {
            let reachable = watched.check(&producer);
            drop(producer);
            if reachable {
                backoff.reset();
            }
            if !watched.pause(reachable, backoff.wait()) {
                break;
            }
        }
    };
    let thread = thread::Builder::new().name("kafka-watch".to_owned()).spawn(check_repeatedly)?;
    let _first = cluster.watch_thread.set(thread.thread().clone());
    Ok(Watch(Arc::clone(cluster)))
}

#[cfg(test)]
mod tests {
    use runtime::vars::Vars;

    use super::*;

    #[test]
    fn a_record_that_times_out_does_not_hide_why_kafka_cannot_be_used() {
        let config = KafkaConfig::from_vars(&Vars::from_pairs([("KAFKA_BROKERS", "127.0.0.1:1")])).unwrap();
        let cluster = Cluster::new(&config, IntGauge::new("up", "up").unwrap());
        cluster.record_timed_out();
        assert_eq!(*cluster.state(), State::Unreachable);
        cluster.set(State::TopicMissing);
        cluster.record_timed_out();
        assert_eq!(*cluster.state(), State::TopicMissing);
    }
}
