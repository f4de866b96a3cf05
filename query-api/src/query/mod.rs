//! `/v1/query`: any measure of a declared rollup, by any of its dimensions, over any window.
//!
//! The files follow the way of a query: [`params`] reads it, [`window`] and [`grain`] find its buckets; [`plan`] chooses
//! the rollups, [`compare`] the windows that are read, [`sql`] writes one statement, [`budget`] gives it its turn and
//! [`fetch`] asks ClickHouse; [`shape`] makes rows of what it gave ([`cursor`] says where a page begins) and
//! [`render`] bytes of them; [`http`] has the routes, formats and headers.
//! Unlike the rest of this service a query asks ClickHouse when it is asked; equal ones do so once per tick.

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

pub(crate) mod http;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
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
use plan::{Planner, Reach};
use shape::Shaped;
use sql::Limits;
use window::Window;

pub(crate) use http::{PATHS, routes};
pub(crate) use params::{Format, PARAMETERS, Parameter, Shape, Values};

/// What one query may ask for at most.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct QueryLimits {
    /// Most measures.
    measures: usize,
    /// Most dimensions.
    dimensions: usize,
    /// Most filters. Those of the key are not counted.
    pub(crate) filters: usize,
    /// Most values that `top` ranks.
    top: usize,
    /// Most rows of an answer.
    rows: usize,
    /// Most rows before `limit`: keys times buckets.
    cells: usize,
    /// Most bytes of the body of a POST.
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
    body_bytes: http::MAX_BODY,
};

/// How often a query is planned again because its rows tell that the tables hold something else than was known.
const MAX_PLANS: usize = 3;

/// What queries share.
struct QueryService {
    rollups: Rollups,
    /// Hash of these rollups.
    declared: u64,
    /// What the latest statement reported about the tables: the next one is planned with it.
    reach: ArcSwap<Reach>,
    limits: Limits,
    budget: Budget<Shaped>,
    database: Database,
    /// Milliseconds between two ticks.
    interval: i64,
    state: Arc<AppState>,
}

impl QueryService {
    fn new(config: &Config, state: Arc<AppState>) -> Self {
        let limits = Limits {
            seconds: config.query.deadline.as_secs().max(1),
            rows_to_read: config.query.max_rows_to_read.get(),
        };
        Self {
            declared: config.rollups.hash(),
            rollups: config.rollups.clone(),
            reach: ArcSwap::default(),
            limits,
            budget: Budget::new(BudgetLimits::of_queries(config), state.metrics.queries.clone()),
            database: Database::new(&config.clickhouse),
            interval: i64::try_from(config.refresh.interval.as_millis()).unwrap_or(i64::MAX),
            state,
        }
    }

    /// The rows that answer a query now.
    async fn answer(&self, reader: &Arc<Reader>, query: &Query) -> Result<Arc<Shaped>, Problem> {
        let now = UnixMillis::from(SystemTime::now()).0.div_euclid(1000);
        let window = Window::new((query.from, query.to), query.grain, query.calendar.clone(), now)?;
        shape::check_size(query, &window, now)?;
        // What is not counted yet has no equally long counterpart.
        let as_of = self.state.snapshot.load().as_ref().and_then(|snapshot| snapshot.as_of);
        let counted = as_of.map_or(now, |as_of| now.min(as_of.0.div_euclid(1000)));
        let asked = Asked { query, window, now, counted };
        // What cannot be planned is refused before it takes a turn.
        let reach = self.reach.load();
        let slices = asked.slices(&self.rollups, &reach).or_else(|problem| match &reach.theirs {
            // The aggregator may have started with our rollups meanwhile.
            Some(_) => asked.slices(&self.rollups, &Reach { theirs: None, since: reach.since.clone() }),
            None => Err(problem),
        })?;
        let is_slow = query.accuracy == Accuracy::Exact
            && slices.main.plan.parts.iter().any(|part| part.distinct().next().is_some());
        let key = Key {
            tick: *self.state.snapshots.borrow(),
            reader: Arc::clone(reader),
            window: (asked.window.from(), asked.window.to()),
            query: query.canonical(),
        };
        let run = self.run(reader, &asked, slices);
        self.budget.answer(key, if is_slow { Lane::Slow } else { Lane::Normal }, run).await
    }

    /// Asks ClickHouse, and again if its answer tells that other rollups have to be read.
    async fn run(&self, reader: &Reader, asked: &Asked<'_>, mut slices: Slices) -> Result<Shaped, Problem> {
        for _ in 0..MAX_PLANS {
            let statement = sql::statement(asked.query, &slices, &reader.tenant, self.declared, self.limits);
            let fetched = self.database.fetch(statement).await?;
            if **self.reach.load() != fetched.reach {
                self.reach.store(Arc::new(fetched.reach.clone()));
            }
            let planned = asked.slices(&self.rollups, &fetched.reach)?;
            if planned == slices {
                return shape::shape(asked.query, &slices, fetched, asked.now);
            }
            slices = planned;
        }
        tracing::warn!("a query has no answer: what the rollups hold changed with each statement");
        Err(Kind::Unavailable.into())
    }

    /// Whether an answer should have been renewed twice by now.
    fn is_stale(&self, shaped: &Shaped, now: UnixMillis) -> bool {
        let limit = self.interval.saturating_mul(3);
        shaped.as_of.is_none_or(|as_of| now.0 - as_of.0 > limit)
    }
}

/// A query at a moment.
struct Asked<'a> {
    query: &'a Query,
    window: Window,
    now: i64,
    /// Everything before this moment is counted.
    counted: i64,
}

impl Asked<'_> {
    /// What has to be read.
    fn slices(&self, rollups: &Rollups, reach: &Reach) -> Result<Slices, Problem> {
        let planner = Planner::new(rollups, reach, self.query, self.now)?;
        Slices::new(self.query, &planner, &self.window, self.counted)
    }
}
