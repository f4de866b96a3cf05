//! `/v1/retention`: how many users of a period came back in later periods.
//!
//! A cohort is all users who have the event `first` in a period, whether or not they had it in an earlier period.
//! [`params`] reads the request, [`sql`] writes the statement, [`cohorts`] makes rows of its result.

pub(super) mod params;

mod sql;

mod cohorts;

use std::sync::Arc;

use super::lane::Counted;
use super::render::{Answer, Meta};
use super::source::{Counts, Needs, Source};
use super::{PeopleService, now};
use crate::access::Reader;
use crate::problem::{Kind, Problem};
use crate::query::window::{Bound, Window};
use crate::reach::Reach;
use cohorts::Cohorts;
use params::Retention;

/// Maximum number of periods of a table: the periods of the cohorts and the later periods together. The limit is 64,
/// because the statement keeps two 64-bit numbers for each user, one for `first` and one for `again`, with a bit for
/// each period.
const MAX_PERIODS: usize = 64;
/// If `from` is absent: the number of periods from the first cohort to the current period, both included.
const COHORTS: i64 = 8;

/// The periods of a table.
#[derive(Debug)]
struct Periods {
    /// The periods of the cohorts.
    window: Window,
    /// The starts of all periods, and the end of the last period.
    edges: Vec<i64>,
}

impl Periods {
    fn new(request: &Retention, now: i64) -> Result<Self, Problem> {
        let from = request.from.unwrap_or(Bound::Last(COHORTS, request.grain));
        let window = Window::new((from, request.to), request.grain, request.calendar.clone(), now)?;
        let all = window.buckets() + request.periods;
        if all > MAX_PERIODS {
            let reason = format!(
                "together with the cohorts there are {all} periods, but at most {MAX_PERIODS} are allowed"
            );
            return Err(Problem::of(Kind::TooWide, "periods", reason));
        }
        let mut edges = window.edges.clone();
        for _ in 0..request.periods {
            edges.push(request.calendar.next(request.grain, edges[edges.len() - 1]));
        }
        if edges[all] > i64::from(u32::MAX) {
            return Err(Problem::bad("to", "the last period must end before 2106"));
        }
        Ok(Self { window, edges })
    }
}

/// Answers a request for a retention table. Relative bounds of its window refer to the current time.
pub(super) async fn answer(
    service: &PeopleService,
    reader: &Arc<Reader>,
    request: &Retention,
) -> Result<Answer<Cohorts>, Problem> {
    let now = now();
    let periods = Periods::new(request, now)?;
    let known = service.state.reach();
    let reach = known.clone().unwrap_or_default();
    let source = source(service, &reach, reader, request, &periods, now)?;
    // This check comes after all checks of the request. `NotYet` asks the client to retry, and a retry of a request
    // with a mistake cannot succeed.
    known.ok_or(Kind::NotYet)?;
    let (select, parameters) = sql::select(request, &periods, &source, &reader.tenant);
    let window = (periods.edges[0], periods.edges[periods.edges.len() - 1]);
    let query = format!("retention {}", request.given.canonical());
    let run = async { Ok(Counted { rows: service.lane.count(select, parameters).await?, reach }) };
    let counted = service.lane.answer(reader, window, query, run).await?;
    let as_of = counted.reach.as_of;
    // The rollup lacks events from before the start of its retention, and events that arrived before it began to count.
    // So the rollup is complete from the later of two moments: the start of its retention, and the moment from which on
    // it has counted every event. A moment that does not exist is `None`, which `max` treats as less than every moment.
    let complete_from = source.kept_from.max(counted.reach.since.get(&source.rollup.name).copied());
    Ok(Answer {
        data: Cohorts::new(request, &periods, complete_from, &counted, now),
        meta: Meta {
            as_of,
            rollups_differ: counted.reach.aggregator_rollups.is_some(),
            complete_until: as_of
                .and_then(|as_of| cohorts::complete_until(&periods.edges, as_of))
                .map(|until| request.calendar.local(until)),
            rollups: vec![source.rollup.name],
            from: request.calendar.local(periods.window.from()),
            to: request.calendar.local(periods.window.to()),
            tz: request.calendar.zone.iana_name().unwrap_or("UTC").to_owned(),
        },
    })
}

fn source(
    service: &PeopleService,
    reach: &Reach,
    reader: &Reader,
    request: &Retention,
    periods: &Periods,
    now: i64,
) -> Result<Source, Problem> {
    let events = [("first", request.first()), ("again", request.again())];
    let filters: Vec<_> =
        events.into_iter().chain(request.filters.iter().map(|filter| ("filter", filter))).collect();
    let zone = request.calendar.zone.iana_name().unwrap_or("UTC");
    let needs = Needs { counts: Counts::Users, reader, filters: &filters, edges: &periods.edges, zone };
    Source::choose(&service.rollups, reach, needs, now)
}

#[cfg(test)]
mod tests;
