//! Runs the three services in this process, each through the same functions as its own `main`. Also runs the front
//! port, which forwards requests to the edge and to the query API.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use ingest::Edge;
use query_api::QueryApi;
use runtime::serve::{Listeners, Server};
use runtime::vars::Vars;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::stored::StoredRows;
use super::{front, output};
use crate::ports;
use crate::servers::clickhouse::ClickHouse;
use crate::wait::wait_for;

/// The preferred front port.
pub(super) const FRONT_PORT: u16 = 8080;
/// Longest wait for the readiness of each service. The waits follow one another.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for open requests at the front port after Ctrl-C.
const FRONT_DRAIN: Duration = Duration::from_secs(10);

/// The addresses of the services.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    /// The port for writes and reads.
    pub(super) front: SocketAddr,
    /// The edge's port for clients, and its admin port.
    pub(super) ingest: (SocketAddr, SocketAddr),
    /// The aggregator's admin port.
    pub(super) stream_agg: SocketAddr,
    /// The query API's port for readers, and its admin port.
    pub(super) query_api: (SocketAddr, SocketAddr),
}

/// The running services.
pub(super) struct Services {
    pub(super) addresses: Addresses,
    front: Task<()>,
    edge: Task<ingest::Summary>,
    aggregator: Task<stream_agg::Summary>,
    query: Task<()>,
    /// Cancelled to end the streams of the query API, which would otherwise keep connections of the front port open.
    streaming: CancellationToken,
    /// Cancelled when any service ends.
    ended: CancellationToken,
}

/// Adds users to the users file of a local ClickHouse that is not started yet: the definers, with whose rights the
/// analysts' views read, and for each tenant the user that reads the views of the tenant. Does nothing for an external
/// ClickHouse.
pub(super) fn declare_users_of_views(vars: &Vars, clickhouse: &ClickHouse) -> anyhow::Result<()> {
    let config = stream_agg::Config::from_vars(vars)?;
    clickhouse.declare_users(&config.migrate.users_of_views())
}

/// Creates or updates the tables and the topic.
pub(super) async fn migrate(vars: &Vars) -> anyhow::Result<()> {
    let config = stream_agg::Config::from_vars(vars)?;
    stream_agg::migrate(&config.migrate).await?;
    Ok(())
}

impl Services {
    /// Starts all services and waits until all are ready or one has ended.
    pub(super) async fn start(vars: &Vars) -> anyhow::Result<Self> {
        let ingest = Listeners { http: listen(8081).await?, admin: listen(9081).await? };
        let stream_agg = listen(9082).await?;
        let query_api = Listeners { http: listen(8083).await?, admin: listen(9083).await? };
        // The front port is chosen last: if 8080 is taken, the front port is the next free port, and this port must not
        // be one of the preferred ports above.
        let front = listen(FRONT_PORT).await?;
        let addresses = Addresses {
            front: front.local_addr()?,
            ingest: (ingest.http.local_addr()?, ingest.admin.local_addr()?),
            stream_agg: stream_agg.local_addr()?,
            query_api: (query_api.http.local_addr()?, query_api.admin.local_addr()?),
        };

        let config = stream_agg::Config::from_vars(vars)?;
        let mut edge = ingest::Config::from_vars(vars)?;
        edge.poll_results.url.get_or_insert_with(|| format!("http://{}", addresses.query_api.0));
        let edge = Edge::start(edge)?;
        let query = QueryApi::start(query_api::Config::from_vars(vars)?);
        let streaming = query.streaming();
        let service = front::route(edge.service(), query.service());
        let ended = CancellationToken::new();
        let services = Self {
            addresses,
            front: Task::start("front port", &ended, |stop| {
                Server::default().until(front, service, stop, FRONT_DRAIN)
            }),
            edge: Task::start("ingest", &ended, |stop| edge.serve(ingest, stop)),
            aggregator: Task::start("stream-agg", &ended, |stop| stream_agg::run(config, stream_agg, stop)),
            query: Task::start("query-api", &ended, |stop| query.serve(query_api, stop)),
            streaming,
            ended,
        };
        services.ready().await?;
        Ok(services)
    }

    /// Whether a service has ended; [`Services::stop`] returns the reason.
    pub(super) fn have_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Returns when a service has ended, which should not happen before [`Services::stop`].
    pub(super) async fn ended_early(&self) {
        self.ended.cancelled().await;
    }

    /// Stops the services in the order of the data flow, and prints how much was stored.
    pub(super) async fn stop(self, stored: &StoredRows) -> anyhow::Result<()> {
        self.streaming.cancel();
        let front = self.front.stop().await;
        let edge = self.edge.stop().await;
        let accepted = edge.as_ref().map_or(0, |summary| summary.0.accepted);
        let caught_up = output::timed("store all accepted events", stored.catch_up(accepted)).await;
        let aggregator = self.aggregator.stop().await;
        let query = self.query.stop().await;
        let reported = stored.report(accepted).await;
        front.and(edge.map(drop)).and(caught_up).and(aggregator.map(drop)).and(query).and(reported)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let probe = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
        let admin_ports = [
            ("ingest", self.addresses.ingest.1),
            ("stream-agg", self.addresses.stream_agg),
            ("query-api", self.addresses.query_api.1),
        ];
        for (name, admin) in admin_ports {
            let url = format!("http://{admin}/readyz");
            let mut reason = "no answer".to_owned();
            let ready = wait_for(format!("{name} to be ready"), READY_DEADLINE, async || {
                let Ok(answer) = probe.get(&url).send().await else { return self.have_ended() };
                let ready = answer.status().is_success();
                reason = answer.text().await.unwrap_or_default();
                ready || self.have_ended()
            });
            ready.await.with_context(|| format!("ask {url} of {name}: {}", reason.trim_end()))?;
        }
        Ok(())
    }
}

/// A service or the front port, on a task of its own.
struct Task<T> {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<T>>,
}

impl<T: Send + 'static> Task<T> {
    fn start<F, E>(
        name: &'static str,
        ended: &CancellationToken,
        serve: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let stop = CancellationToken::new();
        let serve = serve(stop.clone());
        let ended: DropGuard = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _ended = ended;
            serve.await.with_context(|| format!("run {name}"))
        });
        Self { name, stop, task }
    }

    async fn stop(self) -> anyhow::Result<T> {
        self.stop.cancel();
        output::timed(&format!("stop {}", self.name), async { self.task.await? }).await
    }
}

/// Listens on `preferred` or the next free port, on the loopback interface.
async fn listen(preferred: u16) -> anyhow::Result<TcpListener> {
    let port = ports::from(preferred).with_context(|| format!("find a free port from {preferred} on"))?;
    let address = ports::local(port);
    TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
}
