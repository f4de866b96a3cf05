//! `/v1/query`: any measure of a declared rollup, by any of its dimensions, over any window.
//!
//! A query passes through these files: [`params`] parses it, [`window`] and [`grain`] find its buckets, [`plan`]
//! chooses the rollups by their state at the latest refresh, [`compare`] chooses the windows that are read, and [`sql`]
//! writes one statement. [`budget`] lets the statement wait while too many others run, and [`fetch`] sends it to
//! ClickHouse. Then [`shape`] makes the rows of the answer ([`cursor`] says where a page begins), [`render`] turns them
//! into bytes, and [`send`] bounds the memory of long answers. [`http`] has the routes, formats and headers.
//!
//! A prepared answer is computed at each refresh. A query, in contrast, is sent to ClickHouse when its request arrives,
//! but equal queries of a reader are sent only once per refresh.

pub(crate) mod params;

pub(crate) mod window;

pub(crate) mod grain;

mod plan;

mod compare;

pub(crate) mod sql;

pub(crate) mod budget;

pub(crate) mod fetch;

mod shape;

mod cursor;

mod render;

mod send;

pub(crate) mod http;

use std::sync::Arc;
use std::time::SystemTime;

use schemas::rollup::Rollups;
use schemas::time::UnixMillis;
use serde::Serialize;

use crate::access::Reader;
use crate::config::Config;
use crate::problem::{Kind, Problem};
use crate::state::AppState;
use budget::{Budget, BudgetLimits, Key, Lane};
use compare::Slices;
use fetch::Database;
use params::{Accuracy, Query};
use plan::Planner;
use send::LongAnswers;
use shape::Shaped;
use sql::Limits;
use window::Window;

pub(crate) use http::{PATHS, routes};
pub(crate) use params::{Format, PARAMETERS, Parameter, Shape, Values};

/// What one query may ask for at most.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct QueryLimits {
    /// Maximum number of measures.
    measures: usize,
    /// Maximum number of dimensions.
    dimensions: usize,
    /// Maximum number of filters in a request. The filters of the reader's key are not counted.
    pub(crate) filters: usize,
    /// Maximum number of values that `top` ranks.
    top: usize,
    /// Maximum number of rows of an answer.
    rows: usize,
    /// Maximum number of rows of an answer whose empty buckets are filled, before `limit` is applied: the number of
    /// buckets times the number of combinations of dimension values.
    cells: usize,
    /// Maximum number of bytes of the body of a POST.
    body_bytes: usize,
}

/// The limits of every query, as `/v1/meta` shows them.
pub(crate) const LIMITS: QueryLimits = QueryLimits {
    measures: params::MAX_MEASURES,
    dimensions: params::MAX_DIMENSIONS,
    filters: params::MAX_FILTERS,
    top: params::MAX_TOP,
    rows: params::MAX_LIMIT,
    cells: shape::MAX_CELLS,
    body_bytes: http::MAX_BODY_BYTES,
};

/// What all queries share.
struct QueryService {
    rollups: Rollups,
    limits: Limits,
    budget: Budget<Shaped>,
    long_answers: LongAnswers,
    database: Database,
    /// Milliseconds between two refreshes.
    interval_ms: i64,
    state: Arc<AppState>,
}

impl QueryService {
    fn new(config: &Config, state: Arc<AppState>) -> Self {
        let limits = Limits {
            seconds: config.query.deadline.as_secs().max(1),
            rows_to_read: config.query.max_rows_to_read.get(),
        };
        Self {
            rollups: config.rollups.clone(),
            limits,
            budget: Budget::new(BudgetLimits::of_queries(config), state.metrics.queries.clone()),
            long_answers: LongAnswers::new(),
            database: Database::new(&config.clickhouse),
            interval_ms: i64::try_from(config.refresh.interval.as_millis()).unwrap_or(i64::MAX),
            state,
        }
    }

    /// The answer to a query at this moment.
    async fn answer(&self, reader: &Arc<Reader>, query: &Query) -> Result<Arc<Shaped>, Problem> {
        let now = UnixMillis::from(SystemTime::now()).0.div_euclid(1000);
        let window = Window::new((query.from, query.to), query.grain, query.calendar.clone(), now)?;
        shape::check_size(query, &window, now)?;
        let known = self.state.reach();
        let reach = known.clone().unwrap_or_default();
        // A comparison ends at `as_of`. After `as_of`, some events of the query's window are not counted yet, while the
        // window to compare with usually has all of its events. If the comparison continued after `as_of`, the change
        // would be too low.
        let counted = reach.as_of.map_or(now, |as_of| now.min(as_of.0.div_euclid(1000)));
        let planner = Planner::new(&self.rollups, &reach, query, reader, now)?;
        let slices = Slices::new(query, &planner, &window, counted)?;
        // `NotYet` invites a retry. A retry does not fix a mistake in the request, so mistakes are reported first.
        known.ok_or(Kind::NotYet)?;
        let is_slow = query.accuracy == Accuracy::Exact
            && slices.main.plan.parts.iter().any(|part| part.distinct().next().is_some());
        let key = Key {
            refresh: *self.state.snapshots.borrow(),
            reader: Arc::clone(reader),
            window: (window.from(), window.to()),
            query: query.canonical(),
        };
        let run = async move {
            let statement = sql::statement(query, &slices, &reader.tenant, self.limits);
            let rows = self.database.rows(statement).await?;
            let (takes_long, query) = (rows.len() > send::FEW_ROWS, query.clone());
            let shape = move || shape::shape(&query, &slices, rows, reach.as_of, now);
            send::on_blocking_pool(takes_long, shape).await
        };
        self.budget.answer(key, if is_slow { Lane::Slow } else { Lane::Normal }, run).await
    }

    /// Whether the answer is stale. It is stale if its `as_of` is not known, or is more than three refresh intervals
    /// ago, because then the aggregator is behind or refreshes fail.
    fn is_stale(&self, shaped: &Shaped, now: UnixMillis) -> bool {
        let limit = self.interval_ms.saturating_mul(3);
        shaped.as_of.is_none_or(|as_of| now.0 - as_of.0 > limit)
    }
}
