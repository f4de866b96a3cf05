//! The routes, and the way of a request from headers to answer, cheap checks first.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use ::http::request::Parts;
use ::http::{Method, Request};
use bytes::Bytes;
use hyper::body::Body;
use runtime::serve::PeerAddr;
use schemas::event::Code;
use schemas::line::Prefix;
use schemas::time::UnixMillis;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task;

use crate::answer::{self, Answer, Said};
use crate::body::{self, Described, Encoding, Reservation};
use crate::client_ip::{self, ClientIpConfig};
use crate::compat;
use crate::config::{Config, Limits};
use crate::cors::CorsConfig;
use crate::decode::{self, Format};
use crate::enrich::{self, Chunk, Report, Takes};
use crate::identity::Identity;
use crate::keys::file::Keys;
use crate::keys::{ByAddress, Caller, Part};
use crate::metrics::Metrics;
use crate::outcome::{Outcome, Refusal};
use crate::publish::Publisher;
use crate::votes::{Votes, refresh};

/// Room on the bench, where bodies become lines and so are there twice for a moment: a part of
/// `IN_FLIGHT_BYTES`, with place for one of the longest.
pub const BENCH_BYTES: usize = 64 << 20;
/// What a long body takes of it while it is inflated: few are at once, however many cores there are.
const INFLATING_BYTES: usize = BENCH_BYTES / 2;
/// From this length on a body is a matter of milliseconds.
const LONG_BYTES: usize = 256 * 1024;
/// What events inflate to.
const USUAL_RATIO: usize = 8;
/// About what the edge adds to a line.
const ADDED_BYTES: usize = 160;

/// The routes, as metrics name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST /v1/events`, alias `/api/events`.
    Events,
    /// `POST /v1/counters`, alias `/web/post.php`.
    Counters,
    /// `POST /v1/votes`.
    Votes,
    /// `POST /analytics` in both forms.
    Analytics,
    /// Everything else: `404`.
    Other,
}

impl Route {
    /// All routes, for metrics that start at zero.
    pub const ALL: [Self; 5] = [Self::Events, Self::Counters, Self::Votes, Self::Analytics, Self::Other];

    /// The route of a path.
    pub fn of(path: &str) -> Self {
        match path {
            "/v1/events" | "/api/events" => Self::Events,
            "/v1/counters" | "/web/post.php" => Self::Counters,
            "/v1/votes" => Self::Votes,
            "/analytics" => Self::Analytics,
            _ if path.starts_with("/analytics/") => Self::Analytics,
            _ => Self::Other,
        }
    }

    /// Which events it takes.
    fn takes(self) -> Takes {
        match self {
            Self::Counters => Takes::Counters,
            Self::Events | Self::Votes | Self::Analytics | Self::Other => Takes::Any,
        }
    }

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Counters => "counters",
            Self::Votes => "votes",
            Self::Analytics => "analytics",
            Self::Other => "other",
        }
    }
}

/// What all requests share.
pub struct Shared {
    limits: Limits,
    client_ip: ClientIpConfig,
    pub(crate) keys: Arc<Keys>,
    by_address: Option<ByAddress>,
    pub(crate) cors: CorsConfig,
    /// One permit for each byte of a body in memory.
    in_flight: Arc<Semaphore>,
    /// One permit for each byte of the lines that are being made of bodies.
    bench: Semaphore,
    pub(crate) publisher: Publisher,
    pub(crate) metrics: Arc<Metrics>,
    /// The polls' results; none as long as none were fetched.
    pub(crate) poll_results: refresh::Latest,
}

/// What only the edge knows of a request, known once its headers are complete.
struct Arrival {
    route: Route,
    caller: Caller,
    /// The client's address, whole.
    ip: IpAddr,
    server_time: UnixMillis,
}

impl Shared {
    /// What requests share, at the start.
    pub fn new(config: &Config, publisher: Publisher, metrics: Arc<Metrics>) -> Self {
        let in_flight = Arc::new(Semaphore::new(config.limits.in_flight_bytes - BENCH_BYTES));
        let (limits, client_ip, cors) =
            (config.limits.clone(), config.client_ip.clone(), config.cors.clone());
        let keys = Arc::new(Keys::new(&config.keys, metrics.keys_stale.clone()));
        let by_address = config.ip_rate.map(ByAddress::new);
        let poll_results = refresh::Latest::default();
        let bench = Semaphore::new(BENCH_BYTES);
        Self { limits, client_ip, keys, by_address, cors, in_flight, bench, publisher, metrics, poll_results }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>, server_time: UnixMillis) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, mut body) = request.into_parts();
        let (route, ip) = (Route::of(head.uri.path()), self.client_ip(&head));
        if route == Route::Other {
            return unread(Refusal::NotFound, &head, body).await;
        }
        if head.method != Method::POST {
            return unread(Refusal::MethodNotAllowed, &head, body).await;
        }
        let arrival = match self.admit(&head, ip) {
            Ok(caller) => Arrival { route, caller, ip, server_time },
            Err(refusal) => return unread(refusal, &head, body).await,
        };
        match arrival.route {
            Route::Events | Route::Counters | Route::Votes => match self.receive(&head, &mut body).await {
                Ok((bytes, format, _reserved)) => self.events(&arrival, &head, bytes, format).await,
                Err(refusal) => unread(refusal, &head, body).await,
            },
            Route::Analytics => match reaction(&head) {
                Ok(line) => self.reaction(&arrival, line, &head, body).await,
                Err(refusal) => unread(refusal, &head, body).await,
            },
            Route::Other => unread(Refusal::NotFound, &head, body).await,
        }
    }

    /// Who sends a request. One event is taken of the rates before a body is read, so that whoever
    /// has used them up is refused cheaply.
    fn admit(&self, head: &Parts, ip: IpAddr) -> Result<Caller, Refusal> {
        let caller = self.keys.admit(head, ip)?;
        self.take(&caller, ip, Part::First)?;
        Ok(caller)
    }

    /// Takes events of the rates of key and address.
    fn take(&self, caller: &Caller, ip: IpAddr, part: Part) -> Result<(), Refusal> {
        let by_address = || self.by_address.as_ref().map_or(Ok(()), |rates| rates.take(ip, part));
        caller.take(part).and_then(|()| by_address()).inspect_err(|_| self.metrics.rate_limited.inc())
    }

    fn client_ip(&self, head: &Parts) -> IpAddr {
        let (ip, source) = client_ip::client_ip(peer(head), &head.headers, &self.client_ip.trusted);
        self.metrics.client_ip(source);
        ip
    }

    /// Reads a body whole, inflated; what was reserved for it stays so while it lives.
    async fn receive<B>(&self, head: &Parts, body: &mut B) -> Result<(Bytes, Format, Reservation), Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Described { format, encoding, declared } = Described::of(&head.headers, &self.limits)?;
        let most = declared.unwrap_or(self.limits.body_bytes);
        let mut reserved = Reservation::take(&self.in_flight, most, &self.metrics.in_flight_bytes)?;
        let bytes = body::read(body, declared, &self.limits).await?;
        reserved.fit(bytes.len())?;
        self.metrics.body(bytes.len());
        let length = match encoding {
            Encoding::Identity => 0,
            Encoding::Gzip | Encoding::Zstd => USUAL_RATIO * bytes.len(),
        };
        let _bench = self.bench(if length < LONG_BYTES { length } else { INFLATING_BYTES }).await;
        let bytes = at_length(length, || body::decoded(bytes, encoding, &self.limits, &mut reserved))?;
        Ok((bytes, format, reserved))
    }

    async fn events(&self, arrival: &Arrival, head: &Parts, body: Bytes, format: Format) -> Answer {
        Answer::new(match self.publish(arrival, head, body, format).await {
            Ok(_) if answer::prefers_minimal(&head.headers) => Said::StoredMinimal,
            Ok(report) if arrival.route == Route::Votes => self.voted(report),
            Ok(report) => Said::Stored(report),
            Err(said) => said,
        })
    }

    /// What votes are told: how their poll stands, by what is known already.
    fn voted(&self, mut report: Report) -> Said {
        let latest = self.poll_results.load();
        let now = SystemTime::now().into();
        let standing =
            latest.as_ref().zip(report.poll.take()).and_then(|(latest, poll)| latest.of(poll, now));
        Said::Voted(report, standing)
    }

    /// A reaction, which has no use for a body.
    async fn reaction<B>(&self, arrival: &Arrival, line: String, head: &Parts, mut body: B) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let stored = self.publish(arrival, head, line.into(), Format::Ndjson).await;
        let said = stored.map_or_else(|said| said, |_| Said::NoContent);
        Answer { said, closes: !body::drain(&mut body, &head.headers).await }
    }

    /// Puts the lines of `body` into Kafka and waits until they are safe there.
    async fn publish(
        &self,
        arrival: &Arrival,
        head: &Parts,
        body: Bytes,
        format: Format,
    ) -> Result<Report, Said> {
        let identity = Identity::of(&head.headers, arrival.caller.identity())?;
        let (chunks, report, bench) = self.enriched(arrival, identity, &body, format).await?;
        let length = body.len();
        drop(body); // what is reserved for it holds its lines from now on
        if chunks.is_empty() {
            return Err(Said::Refused(Refusal::AllLinesInvalid, Some(report)));
        }
        let pending = at_length(length, || self.publisher.hand_over(chunks))?;
        drop(bench);
        pending.durable().await?;
        Ok(report)
    }

    async fn enriched(
        &self,
        arrival: &Arrival,
        identity: Identity<'_>,
        body: &[u8],
        format: Format,
    ) -> Result<(Vec<Chunk>, Report, SemaphorePermit<'_>), Refusal> {
        // First: while Kafka was never reached there is no partition to choose.
        let partitions = self.publisher.partitions()?;
        let lines = at_length(body.len(), || decode::lines(body, format, self.limits.events))?;
        if lines.is_empty() {
            return Err(Refusal::EmptyBody);
        }
        self.take(&arrival.caller, arrival.ip, Part::Rest(lines.len()))?;
        let bench = self.bench(body.len() + lines.len() * ADDED_BYTES).await;
        let votes = (arrival.route == Route::Votes).then(|| Votes::read(&lines));
        let lines = votes.as_ref().map_or(lines, Votes::lines);
        let tenant = arrival.caller.tenant();
        let prefix = Prefix::new(tenant, self.client_ip.mode.kept(arrival.ip), arrival.server_time);
        let takes = arrival.route.takes();
        let enrich = || enrich::enrich(&lines, takes, tenant, identity, &prefix, partitions);
        let (chunks, mut report) = at_length(body.len(), enrich);
        report.poll = votes.and_then(Votes::into_poll);
        self.count(arrival.route, &report);
        Ok((chunks, report, bench))
    }

    /// Waits for room on the bench for so many bytes. Whoever has it does not wait for anything
    /// until it is given back.
    async fn bench(&self, bytes: usize) -> SemaphorePermit<'_> {
        let permits = bytes.min(BENCH_BYTES) as u32;
        self.bench.acquire_many(permits).await.expect("it is never closed")
    }

    fn count(&self, route: Route, report: &Report) {
        self.metrics.received(route, u64::from(report.received()));
        self.metrics.reserved_replaced.inc_by(u64::from(report.reserved_replaced));
        for (code, events) in Code::ALL.into_iter().zip(report.by_code).filter(|(_, events)| *events > 0) {
            self.metrics.ended(Outcome::Rejected(code), u64::from(events));
        }
    }
}

/// Does what takes long for a long body, so that no other request waits for it: the thread hands its
/// tasks over to another one. Where there is no other, as in a test, everybody waits.
fn at_length<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let is_long = bytes >= LONG_BYTES && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    if is_long { task::block_in_place(work) } else { work() }
}

/// Refuses a request whose body was not read to its end.
async fn unread<B>(refusal: Refusal, head: &Parts, mut body: B) -> Answer
where
    B: Body<Data = Bytes> + Unpin,
{
    let closes = !body::drain(&mut body, &head.headers).await;
    Answer { closes, ..Answer::refused(refusal) }
}

fn reaction(head: &Parts) -> Result<String, Refusal> {
    match head.uri.path().strip_prefix("/analytics/") {
        Some(path) => compat::by_path(path),
        None => compat::by_query(head.uri.query().unwrap_or_default()),
    }
}

/// The address of the connection's other end. Only a request that came over no
/// connection, as in a test, has none.
fn peer(head: &Parts) -> IpAddr {
    let peer = head.extensions.get::<PeerAddr>().map(|PeerAddr(addr)| addr.ip());
    peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}
