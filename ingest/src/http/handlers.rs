//! The routes, and the way of a request from headers to answer, cheap checks first.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use ::http::request::Parts;
use ::http::{Method, Request};
use bytes::Bytes;
use hyper::body::Body;
use runtime::serve::PeerAddr;
use schemas::event::Code;
use schemas::line::Prefix;
use schemas::row::TimeLimits;
use schemas::time::UnixMillis;
use schemas::trace::TraceParent;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::task;

use crate::accept::body::{self, Described, Encoding, Reservation};
use crate::accept::decode;
use crate::accept::enrich::{self, Chunk, Report, Takes};
use crate::accept::geoip::GeoIp;
use crate::accept::hot_keys::HotKeys;
use crate::accept::identity::Identity;
use crate::accept::samples::Samples;
use crate::auth::client_ip::{self, ClientIpConfig};
use crate::auth::key_file::Keys;
use crate::auth::keys::Caller;
use crate::auth::rate::{ByAddress, Part};
use crate::config::{Ack, Config, Limits};
use crate::endpoints::reactions;
use crate::endpoints::votes::{Votes, refresh};
use crate::http::cors::CorsConfig;
use crate::http::refusal_log::Refusals;
use crate::http::response::{Answer, Preferences, Said};
use crate::metrics::Metrics;
use crate::outcome::{Outcome, Refusal};
use crate::publish::{Pending, Publisher};
use crate::route::Route;

/// Room on the bench, where long bodies are inflated and become lines, and so are there twice for a
/// moment: a part of `IN_FLIGHT_BYTES`, with place for one of the longest.
pub const BENCH_BYTES: usize = 64 << 20;
/// What a long body takes of it while it is inflated: few are at once, however many cores there are.
const INFLATING_BYTES: usize = BENCH_BYTES / 2;
/// From this length on a body is a matter of milliseconds.
const LONG_BYTES: usize = 256 * 1024;
/// What events inflate to.
const USUAL_RATIO: usize = 8;

/// What all requests share.
pub struct Shared {
    ack: Ack,
    limits: Limits,
    times: TimeLimits,
    client_ip: ClientIpConfig,
    pub(crate) geoip: Option<Arc<GeoIp>>,
    pub(crate) keys: Arc<Keys>,
    by_address: Option<ByAddress>,
    pub(crate) cors: CorsConfig,
    /// One permit for each byte of a body in memory.
    in_flight: Arc<Semaphore>,
    /// One permit for each byte of long bodies that are being worked on.
    bench: Semaphore,
    hot_keys: Option<HotKeys>,
    pub(crate) publisher: Publisher,
    samples: Samples,
    pub(crate) refusals: Refusals,
    pub(crate) metrics: Arc<Metrics>,
    /// The polls' results; none as long as none were fetched.
    pub(crate) poll_results: refresh::Latest,
    /// Not a `CancellationToken`, which takes a lock to tell: every answer asks.
    draining: AtomicBool,
}

/// What only the edge knows of a request, known once its headers are complete.
struct Arrival {
    route: Route,
    caller: Caller,
    /// The client's address, whole.
    ip: IpAddr,
    server_time: UnixMillis,
    follows: Preferences,
    /// When it is answered.
    ack: Ack,
    /// The trace that it belongs to, if that is recorded.
    trace: Option<TraceParent>,
}

impl Shared {
    /// What requests share, at the start.
    pub fn new(config: &Config, publisher: Publisher, metrics: Arc<Metrics>) -> Self {
        let in_flight = Arc::new(Semaphore::new(config.limits.in_flight_bytes - BENCH_BYTES));
        let (limits, client_ip, cors) =
            (config.limits.clone(), config.client_ip.clone(), config.cors.clone());
        let keys = Arc::new(Keys::new(&config.keys, metrics.keys_stale.clone()));
        let geoip = config.geoip.as_ref();
        let geoip = geoip.map(|config| Arc::new(GeoIp::new(config, metrics.geoip_stale.clone())));
        let by_address = config.ip_rate.map(ByAddress::new);
        let poll_results = refresh::Latest::default();
        let draining = AtomicBool::new(false);
        let ack = config.ack;
        let samples = Samples::default();
        let hot_keys = NonZeroU32::new(config.hot_key_rate).map(HotKeys::new);
        Self {
            ack,
            limits,
            times: config.times,
            client_ip,
            geoip,
            keys,
            by_address,
            cors,
            in_flight,
            bench: Semaphore::new(BENCH_BYTES),
            hot_keys,
            publisher,
            samples,
            refusals: Refusals::default(),
            metrics,
            poll_results,
            draining,
        }
    }

    /// From now on connections end with their next answer.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether connections end with their next answer.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
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
        let caller = match self.admit(&head, ip) {
            Ok(caller) => caller,
            Err(refusal) => return unread(refusal, &head, body).await,
        };
        let follows = Preferences::of(&head.headers);
        let ack = follows.ack(self.ack);
        let trace = head.extensions.get().copied().filter(TraceParent::is_sampled);
        let arrival = Arrival { route, caller, ip, server_time, follows, ack, trace };
        match arrival.route {
            Route::Events | Route::Counters | Route::Votes => match self.receive(&head, &mut body).await {
                Ok((bytes, _reserved)) => self.events(&arrival, &head, bytes).await,
                Err(refusal) => unread(refusal, &head, body).await,
            },
            Route::Analytics => match reaction(&head, self.times.accepted(server_time)) {
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
    async fn receive<B>(&self, head: &Parts, body: &mut B) -> Result<(Bytes, Reservation), Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Described { encoding, declared } = Described::of(&head.headers, &self.limits)?;
        let most = declared.unwrap_or(self.limits.body_bytes);
        let mut reserved = Reservation::take(&self.in_flight, most, &self.metrics.in_flight_bytes)?;
        let bytes = body::read(body, declared, &self.limits).await?;
        reserved.fit(bytes.len())?;
        self.metrics.body(bytes.len());
        let room = match encoding {
            Encoding::Gzip | Encoding::Zstd if USUAL_RATIO * bytes.len() >= LONG_BYTES => INFLATING_BYTES,
            _ => 0,
        };
        let inflate = || body::decoded(bytes, encoding, &self.limits, &mut reserved);
        let bytes = self.at_bench(room, inflate).await?;
        Ok((bytes, reserved))
    }

    async fn events(&self, arrival: &Arrival, head: &Parts, body: Bytes) -> Answer {
        let said = match self.publish(arrival, head, body).await {
            Ok(_) if arrival.follows.minimal => Said::StoredMinimal(arrival.ack),
            Ok(report) if arrival.route == Route::Votes => self.voted(arrival.ack, report),
            Ok(report) => Said::Stored(arrival.ack, report),
            Err(said) => return Answer::new(said),
        };
        Answer { follows: arrival.follows, ..Answer::new(said) }
    }

    /// What votes are told: how their poll stands, by what is known already.
    fn voted(&self, ack: Ack, mut report: Report) -> Said {
        let latest = self.poll_results.load();
        let now = SystemTime::now().into();
        let standing =
            latest.as_ref().zip(report.poll.take()).and_then(|(latest, poll)| latest.of(poll, now));
        Said::Voted(ack, report, standing)
    }

    /// A reaction, which has no use for a body.
    async fn reaction<B>(&self, arrival: &Arrival, line: String, head: &Parts, mut body: B) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let follows = Preferences { minimal: false, ..arrival.follows };
        let stored = self.publish(arrival, head, line.into()).await;
        let closes = !body::drain(&mut body, &head.headers).await;
        match stored {
            Ok(_) => Answer { said: Said::NoContent, closes, follows },
            Err(said) => Answer { closes, ..Answer::new(said) },
        }
    }

    /// Puts the lines of `body` into Kafka and, unless it is answered before, waits until they are safe
    /// there.
    async fn publish(&self, arrival: &Arrival, head: &Parts, body: Bytes) -> Result<Report, Said> {
        let bytes = body.len();
        let hand_over = || self.hand_over(arrival, head, body);
        let (report, pending) = self.at_bench(bytes, hand_over).await?;
        match (pending, arrival.ack) {
            (None, _) => return Err(Said::Refused(Refusal::AllLinesInvalid, Some(report))),
            (Some(pending), Ack::Durable) => pending.durable().await?,
            (Some(_), Ack::Accepted) => {}
        }
        Ok(report)
    }

    /// Makes lines of `body`, and records of these; then neither is held any more. Without a good
    /// line there are no records.
    fn hand_over(
        &self,
        arrival: &Arrival,
        head: &Parts,
        body: Bytes,
    ) -> Result<(Report, Option<Pending>), Refusal> {
        let identity = Identity::of(&head.headers, arrival.caller.identity())?;
        let (chunks, report) = self.enriched(arrival, identity, &body)?;
        drop(body);
        if chunks.is_empty() {
            return Ok((report, None));
        }
        let pending = self.publisher.hand_over(chunks, arrival.ack, arrival.trace)?;
        Ok((report, Some(pending)))
    }

    fn enriched(
        &self,
        arrival: &Arrival,
        identity: Identity<'_>,
        body: &[u8],
    ) -> Result<(Vec<Chunk>, Report), Refusal> {
        // First: while Kafka was never reached there is no partition to choose.
        let mut partitions = self.publisher.partitions()?;
        partitions.counting = self.hot_keys.as_ref().map(|keys| keys.at(arrival.server_time));
        let lines = decode::lines(body, self.limits.events)?;
        if lines.is_empty() {
            return Err(Refusal::EmptyBody);
        }
        self.take(&arrival.caller, arrival.ip, Part::Rest(lines.len()))?;
        let votes = (arrival.route == Route::Votes).then(|| Votes::read(&lines));
        let events = votes.as_ref().map(Votes::lines);
        let tenant = arrival.caller.tenant();
        let country = self.geoip.as_ref().and_then(|geoip| geoip.country(arrival.ip));
        let prefix = Prefix::new(tenant, self.client_ip.mode.kept(arrival.ip), arrival.server_time);
        let (chunks, mut report) = enrich::enrich(
            events.as_deref().unwrap_or(&lines),
            Takes::of(arrival.route),
            tenant,
            identity,
            country,
            &prefix,
            partitions,
        );
        report.poll = votes.and_then(Votes::into_poll);
        self.count(arrival.route, &report);
        let samples = self.samples.of(&lines, &report, tenant, arrival.server_time);
        if !samples.is_empty() {
            self.publisher.sample(partitions.spare, &samples);
        }
        Ok((chunks, report))
    }

    /// Does work on so many bytes. For many it waits until there is room on the bench, and other
    /// requests do not wait for it: the thread hands its tasks over to another one. Where there is
    /// no other, as in a test, they do.
    async fn at_bench<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> T {
        if bytes < LONG_BYTES {
            return work();
        }
        let room = bytes.min(BENCH_BYTES) as u32;
        let _room = self.bench.acquire_many(room).await.expect("it is never closed");
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => task::block_in_place(work),
            _ => work(),
        }
    }

    fn count(&self, route: Route, report: &Report) {
        self.metrics.received(route, u64::from(report.received()));
        self.metrics.hot_key.inc_by(u64::from(report.spread));
        self.metrics.reserved_replaced.inc_by(u64::from(report.reserved_replaced));
        for (code, events) in Code::ALL.into_iter().zip(report.by_code).filter(|(_, events)| *events > 0) {
            self.metrics.ended(Outcome::Rejected(code), u64::from(events));
        }
        self.metrics.warned(&report.warned);
    }
}

/// Refuses a request whose body was not read to its end.
async fn unread<B>(refusal: Refusal, head: &Parts, mut body: B) -> Answer
where
    B: Body<Data = Bytes> + Unpin,
{
    let closes = !body::drain(&mut body, &head.headers).await;
    Answer { closes, ..Answer::refused(refusal) }
}

fn reaction(head: &Parts, times: reactions::Times) -> Result<String, Refusal> {
    match head.uri.path().strip_prefix("/analytics/") {
        Some(path) => reactions::by_path(path, times),
        None => reactions::by_query(head.uri.query().unwrap_or_default(), times),
    }
}

/// The address of the connection's other end. Only a request that came over no
/// connection, as in a test, has none.
fn peer(head: &Parts) -> IpAddr {
    let peer = head.extensions.get::<PeerAddr>().map(|PeerAddr(addr)| addr.ip());
    peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}
