//! `/v1/retention` and `/v1/funnel`: what users do over time.
//!
//! The folders [`retention`] and [`funnel`] have the parameters, the statements and the rows of the answers. Both paths
//! share all other code: [`source`] chooses the rollup that is read, [`lane`] asks ClickHouse, [`render`] turns the
//! rows into bytes, and [`http`] has the routes and formats. The statements may take seconds. So they run in a queue of
//! their own, and never delay `/v1/query` or the snapshot.

mod source;

mod lane;

mod retention;

mod funnel;

mod render;

mod http;

use std::sync::Arc;
use std::time::SystemTime;

use schemas::rollup::Rollups;
use schemas::time::UnixMillis;

use crate::config::Config;
use crate::state::AppState;
use lane::Lane;

pub(crate) use funnel::params::PARAMETERS as FUNNEL_PARAMETERS;
pub(crate) use http::{FUNNEL_PATHS, RETENTION_PATHS, routes};
pub(crate) use lane::MAX_CACHE_BYTES;
pub(crate) use retention::params::PARAMETERS as RETENTION_PARAMETERS;

/// The state that retention and funnels share.
struct PeopleService {
    rollups: Rollups,
    lane: Lane,
    /// Maximum number of events that a funnel may read.
    max_funnel_events: u64,
    state: Arc<AppState>,
}

impl PeopleService {
    fn new(config: &Config, state: Arc<AppState>) -> Self {
        Self {
            rollups: config.rollups.clone(),
            lane: Lane::new(config, state.metrics.people.clone()),
            max_funnel_events: config.people.max_funnel_events,
            state,
        }
    }
}

/// The current time in seconds since 1970.
fn now() -> i64 {
    UnixMillis::from(SystemTime::now()).0.div_euclid(1000)
}
