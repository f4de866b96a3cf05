//! `/v1/query`: any measure of a declared rollup, by any of its dimensions, over any window.
//!
//! The files follow the way of a query: [`params`] reads it, [`window`] and [`grain`] find its buckets, [`filter`]
//! its conditions; [`plan`] chooses the rollups, [`sql`] writes one statement, [`budget`] gives it its turn and
//! [`fetch`] asks ClickHouse; [`shape`] makes rows of what it gave ([`cursor`] says where a page
//! begins) and [`render`] bytes of them; [`http`] has the routes, formats and headers.
//! Unlike the rest of this service a query asks ClickHouse when it is asked; equal ones do so once per tick.

pub(crate) mod params;

pub(crate) mod window;

pub(crate) mod grain;

pub(crate) mod filter;

mod plan;

pub(crate) mod sql;

pub(crate) mod budget;

pub(crate) mod fetch;

mod shape;

mod cursor;

mod render;

pub(crate) mod http;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use schemas::rollup::Rollups;
use schemas::time::UnixMillis;

use crate::access::Reader;
use crate::config::Config;
use crate::problem::Problem;
use crate::state::AppState;
use budget::{Budget, Key, Limits};
use fetch::Database;
use params::Query;
use shape::Shaped;
use window::Window;

pub(crate) use http::routes;

/// Statements of queries that run at once.
const AT_ONCE: usize = 4;
/// Longest that a query waits for its turn.
const QUEUE_DEADLINE: Duration = Duration::from_secs(5);

/// What queries share.
struct QueryService {
    rollups: Rollups,
    /// Hash of these rollups.
    declared: u64,
    budget: Budget<Shaped>,
    database: Database,
    /// Milliseconds between two ticks.
    interval: i64,
    state: Arc<AppState>,
}

impl QueryService {
    fn new(config: &Config, state: Arc<AppState>) -> Self {
        Self {
            declared: config.rollups.hash(),
            rollups: config.rollups.clone(),
            budget: Budget::new(Limits {
                at_once: AT_ONCE,
                queue_deadline: QUEUE_DEADLINE,
                deadline: config.refresh.deadline,
                // Ticks end an answer's time; without ClickHouse there are none.
                kept: 2 * config.refresh.interval,
            }),
            database: Database::new(&config.clickhouse, &config.refresh),
            interval: i64::try_from(config.refresh.interval.as_millis()).unwrap_or(i64::MAX),
            state,
        }
    }

    /// The rows that answer a query now.
    async fn answer(&self, reader: &Reader, query: &Query) -> Result<Arc<Shaped>, Problem> {
        let now = UnixMillis::from(SystemTime::now()).0.div_euclid(1000);
        let window = Window::new((query.from, query.to), query.grain, query.calendar.clone(), now)?;
        let plan = plan::plan(&self.rollups, query, &window, now)?;
        shape::check_size(query, &window, now)?;
        let statement = sql::statement(query, &window, &plan, &reader.tenant, self.database.seconds());
        let tick = *self.state.snapshots.borrow();
        let key = Key {
            tick,
            tenant: reader.tenant.clone(),
            window: (window.from(), window.to()),
            query: query.canonical(),
        };
        let run = async {
            let fetched = self.database.fetch(statement).await?;
            shape::shape(query, &window, &plan, fetched, now)
        };
        self.budget.answer(key, run).await
    }

    /// Whether an answer should have been renewed twice by now, or the aggregator has other rollups.
    fn is_stale(&self, shaped: &Shaped, now: UnixMillis) -> bool {
        let limit = self.interval.saturating_mul(3);
        let is_young = shaped.as_of.is_some_and(|as_of| now.0 - as_of.0 <= limit);
        !is_young || shaped.declared.is_some_and(|theirs| theirs != self.declared)
    }
}
