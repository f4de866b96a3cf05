//! `/v1/funnel`: how many users did several steps in a given order.
//!
//! A user enters the funnel with an event of the first step. A later step counts only after the previous step (or in
//! the same millisecond), and within a limited time after the first step. Events outside the window of the request are
//! ignored.
//!
//! [`params`] reads the request, [`sql`] writes two statements, and [`steps`] makes the rows of the answer. The first
//! statement reads from a rollup how many events the steps have in the hours of the window. If there are too many, the
//! request is refused. The second statement reads the raw events, orders the events of each user by the clients' times,
//! and counts the users who reach each step.

pub(super) mod params;

mod sql;

mod steps;

use std::sync::Arc;

use schemas::tables::RAW_DAYS;

use super::lane::Counted;
use super::render::{Answer, Meta};
use super::source::{Counts, Needs, Source};
use super::{PeopleService, now};
use crate::access::Reader;
use crate::problem::{Kind, Problem};
use crate::query::grain::Grain;
use crate::query::window::Window;
use params::Funnel;
use steps::Steps;

/// Seconds in an hour.
const HOUR: i64 = 3_600;
/// Seconds in a day.
const DAY: i64 = 24 * HOUR;

/// Answers a request for a funnel. Relative bounds of its window, such as `-7d`, refer to the current time.
pub(super) async fn answer(
    service: &PeopleService,
    reader: &Arc<Reader>,
    request: &Funnel,
) -> Result<Answer<Steps>, Problem> {
    let now = now();
    let window = window(request, now)?;
    let events = request.all_events();
    let filters = [("steps", &events)];
    let hours = [window.from().div_euclid(HOUR) * HOUR, (window.to() + HOUR - 1).div_euclid(HOUR) * HOUR];
    let needs = Needs { counts: Counts::Events, reader, filters: &filters, edges: &hours, zone: "UTC" };
    let known = service.state.reach();
    let reach = known.clone().unwrap_or_default();
    let source = Source::choose(&service.rollups, &reach, needs, now)?;
    let lane = &service.lane;
    let (size, size_parameters) = sql::size(&source, &events, hours, &reader.tenant);
    let (select, parameters) = sql::select(request, &events, &window, &reader.tenant)?;
    // This check comes after all checks that need no statement. `NotYet` asks the client to retry, and a retry of a
    // request with a mistake cannot succeed.
    known.ok_or(Kind::NotYet)?;
    let run = async {
        let rows = lane.count(size, size_parameters).await?;
        let events = rows.first().and_then(|row| row.figures.first()).copied().unwrap_or(0);
        check_size(events, service.max_funnel_events)?;
        Ok(Counted { rows: lane.count(select, parameters).await?, reach })
    };
    let query = format!("funnel {}", request.given.canonical());
    let counted = lane.answer(reader, (window.from(), window.to()), query, run).await?;
    let as_of = counted.reach.as_of;
    Ok(Answer {
        data: Steps::new(request, &counted),
        meta: Meta {
            as_of,
            rollups_differ: counted.reach.aggregator_rollups.is_some(),
            complete_until: as_of
                .map(|as_of| as_of.0.div_euclid(1000).clamp(window.from(), window.to()))
                .map(|until| request.calendar.local(until)),
            rollups: Vec::new(),
            from: request.calendar.local(window.from()),
            to: request.calendar.local(window.to()),
            tz: request.calendar.zone.iana_name().unwrap_or("UTC").to_owned(),
        },
    })
}

/// The window of the request. Refuses a window that is too long, or that begins before the oldest events that are kept.
fn window(request: &Funnel, now: i64) -> Result<Window, Problem> {
    let window = Window::new((request.from, request.to), Grain::None, request.calendar.clone(), now)?;
    if window.to() - window.from() > i64::from(RAW_DAYS) * DAY {
        let reason = format!("the window may have at most {RAW_DAYS} days");
        return Err(Problem::of(Kind::TooWide, "from", reason));
    }
    let kept_from = now - now.rem_euclid(DAY) - i64::from(RAW_DAYS) * DAY;
    if window.from() < kept_from {
        let kept_from = request.calendar.local(kept_from);
        let reason =
            format!("raw events are kept for {RAW_DAYS} days, so `from` must be at or after {kept_from}");
        return Err(Problem::of(Kind::NotCovered, "from", reason));
    }
    Ok(window)
}

/// Refuses a funnel that would read more than `most` events.
fn check_size(events: u64, most: u64) -> Result<(), Problem> {
    if events <= most {
        return Ok(());
    }
    // The message does not reveal the number of events, because the reader's key might not permit a count of events.
    let reason = format!("the window has more events of these steps than the {most} that a funnel may read");
    Err(Problem::of(Kind::TooWide, "from", reason))
}

#[cfg(test)]
mod tests;
