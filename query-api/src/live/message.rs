//! The body of a message: the state that `/v1/live` shows. No I/O and no clock in here.

use schemas::time::UnixMillis;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::answers::series::ActiveUsers;
use crate::rendered::rfc3339;
use crate::snapshot::LiveAnswer;
use crate::state::AppState;

/// The fields in the order in which they are sent.
#[derive(Serialize)]
struct Message<'a> {
    as_of: Option<String>,
    /// Milliseconds since `as_of`; null if `as_of` is not known.
    age_ms: Option<i64>,
    stale: bool,
    /// Minutes, hour and day; null if their rollups are not declared or no refresh has read them yet.
    series: Option<&'a RawValue>,
    /// Users of the last minutes; null if their rollup is not declared or no refresh has read it yet.
    active: Option<ActiveUsers>,
}

/// The state at `now`, as JSON on one line.
pub(super) fn render(live: &LiveAnswer, now: UnixMillis, stale: bool) -> String {
    let message = Message {
        as_of: live.as_of.map(rfc3339),
        age_ms: live.as_of.map(|as_of| (now.0 - as_of.0).max(0)),
        stale,
        series: live.series.as_ref().map(|series| &*series.body),
        active: live.active,
    };
    serde_json::to_string(&message).expect("numbers and texts become JSON")
}

/// Whether the state is stale. It is stale if its `as_of` is not known; if its `as_of` is more than three refresh
/// intervals ago, because later refreshes should have replaced the state; or if the aggregator declares other rollups
/// than this process.
pub(super) fn is_stale(state: &AppState, live: &LiveAnswer, now: UnixMillis) -> bool {
    let limit = i64::try_from(state.refresh.interval.as_millis()).unwrap_or(i64::MAX).saturating_mul(3);
    let is_young = live.as_of.is_some_and(|as_of| now.0 - as_of.0 <= limit);
    !is_young || state.rollups_differ()
}
