//! Turns the bytes of one request into enriched lines, step by step; [`Acceptor::read_body`] and [`Acceptor::accept`]
//! list the steps.
//!
//! The submodules contain the code of the steps, with two exceptions: `auth` charges rates, and `endpoints::votes`
//! rewrites votes into events. The only I/O is reading the body and the file of the country database. The caller passes
//! in the time and the partitions, and publishes the lines.

mod config;

pub mod body;

pub mod work_budget;

pub mod decode;

pub mod identity;

pub mod geoip;

pub mod hot_keys;

pub mod enrich;

pub mod report;

pub mod samples;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use ::http::HeaderMap;
use bytes::Bytes;
use hyper::body::Body;
use schemas::event::{Code, Country};
use schemas::line::Prefix;
use schemas::time::UnixMillis;
use tokio::sync::Semaphore;

use self::body::{BodyHeaders, Reservation, ReservedBody};
pub use self::config::{AcceptConfig, BodyLimits};
use self::enrich::{Chunk, Partitions};
use self::geoip::GeoIp;
use self::hot_keys::HotKeys;
use self::identity::Identity;
use self::report::Report;
use self::samples::Samples;
use self::work_budget::{CPU_WORK_BYTES, CpuWorkBudget, decompression_cost};
use crate::auth::Auth;
use crate::auth::keys::Caller;
use crate::auth::rate::Charge;
use crate::endpoints::counters::AllowedEvents;
use crate::endpoints::votes::Votes;
use crate::line::Line;
use crate::metrics::Metrics;
use crate::outcome::{Outcome, Refusal};
use crate::route::Route;

/// Turns bodies into enriched lines; shared by all requests.
pub struct Acceptor {
    limits: BodyLimits,
    /// One permit for each byte that bodies may use: `IN_FLIGHT_BYTES` minus [`CPU_WORK_BYTES`].
    in_flight: Arc<Semaphore>,
    cpu_work: CpuWorkBudget,
    geoip: Option<Arc<GeoIp>>,
    hot_keys: Option<HotKeys>,
    samples: Samples,
    metrics: Arc<Metrics>,
}

/// What the edge knows about a request after it has read the headers.
pub struct RequestContext {
    /// The route of the request.
    pub route: Route,
    /// The sender.
    pub caller: Caller,
    /// The client's address, before `IP_MODE` is applied.
    pub ip: IpAddr,
    /// When the edge had received all headers.
    pub server_time: UnixMillis,
}

/// The lines of a request, after they were checked and enriched.
pub struct Accepted {
    /// The valid lines, by partition.
    pub chunks: Vec<Chunk>,
    /// What the response says about the lines.
    pub report: Report,
    /// Samples of the rejected lines, each encoded as a line of a record.
    pub samples: Vec<Vec<u8>>,
}

impl Acceptor {
    /// Creates an acceptor whose memory budgets are unused.
    pub fn new(config: &AcceptConfig, metrics: &Arc<Metrics>) -> Self {
        let geoip = config.geoip.as_ref();
        Self {
            limits: config.limits.clone(),
            in_flight: Arc::new(Semaphore::new(config.limits.in_flight_bytes - CPU_WORK_BYTES)),
            cpu_work: CpuWorkBudget::default(),
            geoip: geoip.map(|config| Arc::new(GeoIp::new(config, metrics.geoip_stale.clone()))),
            hot_keys: NonZeroU32::new(config.hot_key_rate).map(HotKeys::new),
            samples: Samples::default(),
            metrics: Arc::clone(metrics),
        }
    }

    /// The country database. The caller watches its file for changes.
    pub fn geoip(&self) -> Option<&Arc<GeoIp>> {
        self.geoip.as_ref()
    }

    /// The budget for work on long bodies.
    pub fn cpu_work(&self) -> &CpuWorkBudget {
        &self.cpu_work
    }

    /// Reads the whole body of a request and decompresses it.
    pub async fn read_body<B>(&self, headers: &HeaderMap, body: &mut B) -> Result<ReservedBody, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let BodyHeaders { encoding, length } = BodyHeaders::of(headers, &self.limits)?;
        let longest = length.unwrap_or(self.limits.body_bytes);
        let mut reserved = Reservation::take(&self.in_flight, longest, &self.metrics.in_flight_bytes)?;
        let bytes = body::read(body, length, &self.limits).await?;
        reserved.resize(bytes.len())?;
        self.metrics.body(bytes.len());
        let cost = decompression_cost(encoding, bytes.len());
        let decompress = || body::decompress(bytes, encoding, &self.limits, &mut reserved);
        let bytes = self.cpu_work.run(cost, decompress).await?;
        Ok(ReservedBody::new(bytes, reserved))
    }

    /// Turns the body of a request into enriched lines.
    pub fn accept(
        &self,
        auth: &Auth,
        request: &RequestContext,
        identity: Identity<'_>,
        body: &[u8],
        partitions: Partitions<'_>,
    ) -> Result<Accepted, Refusal> {
        let RequestContext { route, caller, ip, server_time } = request;
        let lines = self.decode(body)?;
        auth.charge(caller, *ip, Charge::Rest(lines.len()))?;
        let votes = (*route == Route::Votes).then(|| Votes::read(&lines));
        let events = votes.as_ref().map(Votes::lines);
        let tenant = caller.tenant();
        let prefix = Prefix::new(tenant, auth.stored_ip(*ip), *server_time);
        let (chunks, mut report) = enrich::enrich(
            events.as_deref().unwrap_or(&lines),
            AllowedEvents::of(*route),
            tenant,
            identity,
            self.country(*ip),
            &prefix,
            self.with_hot_keys(partitions, *server_time),
        );
        report.poll = votes.and_then(Votes::into_poll);
        self.count(*route, &report);
        let samples = self.samples.pick(&lines, &report, tenant, *server_time);
        Ok(Accepted { chunks, report, samples })
    }

    fn decode<'a>(&self, body: &'a [u8]) -> Result<Vec<Line<'a>>, Refusal> {
        let lines = decode::lines(body, self.limits.events)?;
        if lines.is_empty() { Err(Refusal::EmptyBody) } else { Ok(lines) }
    }

    fn country(&self, ip: IpAddr) -> Option<Country> {
        self.geoip.as_ref().and_then(|geoip| geoip.country(ip))
    }

    fn with_hot_keys<'a>(&'a self, partitions: Partitions<'a>, time: UnixMillis) -> Partitions<'a> {
        Partitions { hot_keys: self.hot_keys.as_ref().map(|keys| keys.at(time)), ..partitions }
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
