//! `/v1/pipeline`: the state of the pipeline, for operators: what became of the lines of the last 24 hours, up to
//! which moment everything is counted, and what the latest audit found.
//!
//! The figures are about all tenants together, because a Kafka record may have lines of several tenants, and an audit
//! compares whole tables. Invariants: only readers who are operators get the figures; however many requests arrive,
//! ClickHouse is asked at most once per refresh interval, unless a reader disconnects before ClickHouse answers; while
//! ClickHouse does not answer, the latest figures are served with their age.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemas::time::UnixMillis;
use tokio::sync::Mutex;
use tokio::time::{self, Instant};

use crate::access::KnownReader;
use crate::config::Config;
use crate::http::respond;
use crate::problem::{Kind, Problem};
use crate::query::fetch::Database;
use crate::rendered::AsOf;
use crate::state::AppState;
use figures::{Figures, FiguresRow};

mod figures;

/// The path of the route, which is also its label in metrics.
const ROUTE: &str = "/v1/pipeline";
/// The longest wait for ClickHouse: a little longer than the statement may run.
const DEADLINE: Duration = Duration::from_secs(figures::MAX_SECONDS + 1);

struct PipelineService {
    database: Database,
    state: Arc<AppState>,
    last: Mutex<Last>,
}

/// The latest figures, and when the latest attempt to read them ended.
#[derive(Default)]
struct Last {
    attempted_at: Option<Instant>,
    /// The latest figures; `None` before the first successful read.
    figures: Option<Arc<Figures>>,
}

/// The router for `GET /v1/pipeline`.
pub(crate) fn routes(config: &Config, state: Arc<AppState>) -> Router {
    let service =
        PipelineService { database: Database::new(&config.clickhouse), state, last: Mutex::default() };
    Router::new().route(ROUTE, get(answer)).with_state(Arc::new(service))
}

/// `GET /v1/pipeline`. Parameters are ignored, so a reader may add one to bypass a cache.
async fn answer(
    State(service): State<Arc<PipelineService>>,
    KnownReader(reader): KnownReader,
    headers: HeaderMap,
) -> Response {
    let figures = if reader.operator { service.figures().await } else { Err(Kind::NotOperator.into()) };
    let response = match figures {
        Ok(figures) => service.response(&figures, &headers),
        Err(problem) => problem.into_response(),
    };
    service.state.metrics.answered(ROUTE, response.status());
    response
}

impl PipelineService {
    /// Figures that were read within the last refresh interval, or the latest figures if ClickHouse does not answer.
    ///
    /// # Errors
    /// No attempt to read the figures has succeeded since this process started.
    async fn figures(&self) -> Result<Arc<Figures>, Problem> {
        let mut last = self.last.lock().await;
        let interval = self.state.refresh.interval;
        if last.attempted_at.is_none_or(|at| at.elapsed() >= interval) {
            let read = time::timeout(DEADLINE, self.database.rows::<FiguresRow>(figures::statement()));
            let read = read.await.unwrap_or_else(|_| Err(Kind::TooSlow.into()));
            // The time is set only after ClickHouse answered or failed: if the reader disconnects before that, this
            // future is dropped, and the next reader asks ClickHouse.
            last.attempted_at = Some(Instant::now());
            match read {
                Ok(rows) => {
                    if let Some(row) = rows.into_iter().next() {
                        last.figures = Some(Arc::new(row.into()));
                    }
                }
                // The database has logged the reason.
                Err(problem) if problem.kind == Kind::Unavailable => {}
                Err(problem) => tracing::warn!(
                    reason = ?problem.kind,
                    "cannot read the state of the pipeline from clickhouse; the latest state stays in use"
                ),
            }
        }
        last.figures.clone().ok_or_else(|| Kind::Unavailable.into())
    }

    fn response(&self, figures: &Figures, headers: &HeaderMap) -> Response {
        let now = UnixMillis::from(SystemTime::now());
        let rendered = figures.render(self.is_stale(figures, now));
        respond(&rendered, &AsOf::new(figures.as_of), now, headers)
    }

    /// Whether the figures are stale. They are stale if their `as_of` is not known; if their `as_of` is more than three
    /// refresh intervals ago, because then the aggregator is behind or ClickHouse does not answer; or if the aggregator
    /// declares other rollups than this process.
    fn is_stale(&self, figures: &Figures, now: UnixMillis) -> bool {
        let limit = i64::try_from(self.state.refresh.interval.as_millis()).unwrap_or(i64::MAX);
        let is_young = figures.as_of.is_some_and(|as_of| now.0 - as_of.0 <= limit.saturating_mul(3));
        !is_young || self.state.rollups_differ()
    }
}
