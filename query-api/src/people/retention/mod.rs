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

/// The most periods of a table, those of the cohorts and the later ones together: the statement keeps a bit for each
/// period in one 64-bit number per user.
const MAX_PERIODS: usize = 64;
/// Number of cohorts if `from` is absent.
const COHORTS: i64 = 8;

/// The periods of a table.
#[derive(Debug)]
struct Periods {
    /// The periods of the cohorts.
    window: Window,
    /// Starts of all periods, and the end of the last.
    edges: Vec<i64>,
}

impl Periods {
    fn new(asked: &Retention, now: i64) -> Result<Self, Problem> {
        let from = asked.from.unwrap_or(Bound::Last(COHORTS, asked.grain));
        let window = Window::new((from, asked.to), asked.grain, asked.calendar.clone(), now)?;
        let all = window.buckets() + asked.periods;
        if all > MAX_PERIODS {
            let reason = format!(
                "together with the cohorts there are {all} periods, but at most {MAX_PERIODS} are allowed"
            );
            return Err(Problem::of(Kind::TooWide, "periods", reason));
        }
        let mut edges = window.edges.clone();
        for _ in 0..asked.periods {
            edges.push(asked.calendar.next(asked.grain, edges[edges.len() - 1]));
        }
        if edges[all] > i64::from(u32::MAX) {
            return Err(Problem::bad("to", "the last period must end before 2106"));
        }
        Ok(Self { window, edges })
    }
}

/// Answers a retention table at the current time.
pub(super) async fn answer(
    service: &PeopleService,
    reader: &Arc<Reader>,
    asked: &Retention,
) -> Result<Answer<Cohorts>, Problem> {
    let now = now();
    let periods = Periods::new(asked, now)?;
    let known = service.state.reach();
    let reach = known.clone().unwrap_or_default();
    let source = source(service, &reach, reader, asked, &periods, now)?;
    // This check comes last: a mistake in the request must not get the answer "not yet", because a retry does not help.
    known.ok_or(Kind::NotYet)?;
    let (select, parameters) = sql::select(asked, &periods, &source, &reader.tenant);
    let window = (periods.edges[0], periods.edges[periods.edges.len() - 1]);
    let query = format!("retention {}", asked.given.canonical());
    let run = async { Ok(Counted { rows: service.lane.count(select, parameters).await?, reach }) };
    let counted = service.lane.answer(reader, window, query, run).await?;
    let as_of = counted.reach.as_of;
    // The later of the two moments: `None` is less than any moment.
    let kept_from = source.kept_from.max(counted.reach.since.get(&source.rollup.name).copied());
    Ok(Answer {
        data: Cohorts::new(asked, &periods, kept_from, &counted, now),
        meta: Meta {
            as_of,
            rollups_differ: counted.reach.theirs.is_some(),
            complete_until: as_of
                .and_then(|as_of| cohorts::complete_until(&periods.edges, as_of))
                .map(|until| asked.calendar.local(until)),
            rollups: vec![source.rollup.name],
            from: asked.calendar.local(periods.window.from()),
            to: asked.calendar.local(periods.window.to()),
            tz: asked.calendar.zone.iana_name().unwrap_or("UTC").to_owned(),
        },
    })
}

fn source(
    service: &PeopleService,
    reach: &Reach,
    reader: &Reader,
    asked: &Retention,
    periods: &Periods,
    now: i64,
) -> Result<Source, Problem> {
    let events = [("first", asked.first()), ("again", asked.again())];
    let filters: Vec<_> =
        events.into_iter().chain(asked.filters.iter().map(|filter| ("filter", filter))).collect();
    let zone = asked.calendar.zone.iana_name().unwrap_or("UTC");
    let needs = Needs { counts: Counts::Users, reader, filters: &filters, edges: &periods.edges, zone };
    Source::choose(&service.rollups, reach, needs, now)
}

#[cfg(test)]
mod tests;
