//! Chooses the rollup that a statement reads. The rollup must have the measure, a dimension for each filter, and a
//! bucket that begins at each edge of the periods. A rollup with a `where` does not count all events, so it is never
//! chosen.
//!
//! If several rollups qualify, a rollup that still keeps the rows of the whole window is preferred. After that, the
//! same preferences apply as for queries: the longest buckets, then the fewest dimensions, then the earliest
//! declaration. Pure: no clock, no I/O.

use std::cmp::Reverse;

use schemas::rollup::{Dimension, Distinct, Measure, Rollup, Rollups};

use crate::access::Reader;
use crate::filter::Filter;
use crate::problem::{Kind, Problem};
use crate::query::grain;
use crate::reach::Reach;

/// The measure that a key must permit if no rollup declares a count of users.
const USERS: &str = "users";

/// Seconds in a day of UTC.
const DAY: i64 = 86_400;

/// What the rollup must count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// Distinct users.
    Users,
    /// Events.
    Events,
}

/// A rollup that a statement reads, and what the statement must know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) rollup: Rollup,
    /// The name of the measure that the statement reads.
    pub(super) measure: String,
    /// The start of the rollup's retention, in seconds since 1970. Rows of earlier buckets are deleted. `None` if the
    /// rollup keeps all rows.
    pub(super) kept_from: Option<i64>,
}

/// What a rollup must have to be a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs<'a> {
    pub(super) counts: Counts,
    /// The reader, who must be allowed to ask for the measure if `counts` is [`Counts::Users`]. A count of events needs
    /// no permission, because no answer shows it.
    pub(super) reader: &'a Reader,
    /// The conditions, each with the parameter that it comes from.
    pub(super) filters: &'a [(&'static str, &'a Filter)],
    /// Edges of the periods, in seconds since 1970.
    pub(super) edges: &'a [i64],
    /// The name of the time zone of the periods.
    pub(super) zone: &'a str,
}

impl Source {
    /// Chooses the best rollup. `now` determines which rows the rollups still keep.
    ///
    /// # Errors
    /// No rollup has everything that is needed. The error lists what each rollup with a suitable measure lacks. It
    /// names the first parameter that the closest of these rollups (the one that lacks the least) cannot satisfy. If no
    /// rollup has a suitable measure, the error names the parameter of the first filter.
    pub(super) fn choose(
        rollups: &Rollups,
        reach: &Reach,
        needs: Needs<'_>,
        now: i64,
    ) -> Result<Self, Problem> {
        let (mut candidates, mut failures) = (Vec::new(), Vec::new());
        for (place, rollup) in rollups.iter().enumerate() {
            let Some(measure) = measure(rollup, needs.counts) else { continue };
            if needs.counts == Counts::Users && !needs.reader.may_read(measure) {
                continue;
            }
            let mut lacks = lacking(rollup, needs);
            if reach.differs(rollup) {
                let param = needs.filters.first().map_or("from", |(param, _)| param);
                lacks.push((param, "is declared differently by the aggregator, or not at all".to_owned()));
            }
            if lacks.is_empty() {
                let kept_from = kept_from(rollup, now);
                let reaches = kept_from.is_none_or(|kept| kept <= needs.edges[0]);
                let key = (!reaches, Reverse(rollup.grain.length()), rollup.dimensions.len(), place);
                let source = Self { rollup: rollup.clone(), measure: measure.to_owned(), kept_from };
                candidates.push((key, source));
            } else {
                failures.push((&*rollup.name, lacks));
            }
        }
        let best = candidates.into_iter().min_by_key(|(key, _)| *key).map(|(_, source)| source);
        best.ok_or_else(|| none_covers(needs, &failures))
    }

    /// The column of one of the filters for which this source was chosen.
    pub(super) fn column(&self, filter: &Filter) -> String {
        let column = dimension(&self.rollup, filter).expect("a chosen rollup has the dimension");
        format!("S.`{}`", column.column_name())
    }
}

/// Refuses a reader whose key permits no count of the distinct users of all events. The error names the parameter
/// `param`.
pub(super) fn check_reader(rollups: &Rollups, reader: &Reader, param: &str) -> Result<(), Problem> {
    let of_all_events = rollups.iter().filter(|rollup| rollup.conditions.is_empty());
    let names: Vec<_> = of_all_events.filter_map(|rollup| measure(rollup, Counts::Users)).collect();
    if names.iter().any(|name| reader.may_read(name)) {
        return Ok(());
    }
    reader.check_measure(param, names.first().unwrap_or(&USERS))
}

fn measure(rollup: &Rollup, counts: Counts) -> Option<&str> {
    let is_asked = |measure: &Measure| match counts {
        Counts::Users => *measure == Measure::UniqExact(Distinct::User),
        Counts::Events => *measure == Measure::Count,
    };
    rollup.measures.iter().find(|(_, measure)| is_asked(measure)).map(|(name, _)| name.as_str())
}

/// The dimension that a filter names, either by the declared name (`props.plan`) or by the name of the column in the
/// rollup's view (`plan`).
fn dimension<'a>(rollup: &'a Rollup, filter: &Filter) -> Option<&'a Dimension> {
    let named = |dimension: &&Dimension| {
        dimension.to_string() == filter.field || dimension.column_name() == filter.field
    };
    rollup.dimensions.iter().find(named)
}

/// Everything that a rollup lacks: for each item, the parameter that needs it and a phrase for the error message.
fn lacking(rollup: &Rollup, needs: Needs<'_>) -> Vec<(&'static str, String)> {
    let mut lacks = Vec::new();
    for (param, filter) in needs.filters {
        if dimension(rollup, filter).is_none() {
            lacks.push((*param, format!("has no dimension `{}`", filter.field)));
        }
    }
    if !rollup.conditions.is_empty() {
        lacks.push(("filter", "does not hold all events".to_owned()));
    }
    if !grain::has_edges(rollup.grain, needs.edges) {
        let needed = grain::needed(needs.edges).map_or("another grain", |grain| grain.name());
        let has = rollup.grain.name();
        let phrase = format!("has buckets of grain {has}, and these periods in {} need {needed}", needs.zone);
        lacks.push(("tz", phrase));
    }
    lacks
}

/// The start of the rollup's retention at the moment `now`; `None` if the rollup keeps all rows.
fn kept_from(rollup: &Rollup, now: i64) -> Option<i64> {
    let days = i64::from(rollup.retention_days?);
    Some(now - now.rem_euclid(DAY) - days * DAY)
}

fn none_covers(needs: Needs<'_>, failures: &[(&str, Vec<(&'static str, String)>)]) -> Problem {
    let what = match needs.counts {
        Counts::Users => "distinct users (`uniq_exact(user)`)",
        Counts::Events => "events (`count`)",
    };
    let closest = failures.iter().min_by_key(|(_, lacks)| lacks.len());
    let param = closest
        .map_or_else(|| needs.filters.first().map_or("from", |(param, _)| param), |(_, lacks)| lacks[0].0);
    let phrases: Vec<_> = failures
        .iter()
        .map(|(rollup, lacks)| {
            let lacks: Vec<_> = lacks.iter().map(|(_, phrase)| phrase.as_str()).collect();
            format!("`{rollup}` {}", lacks.join(" and "))
        })
        .collect();
    let phrases =
        if phrases.is_empty() { "none with this measure is declared".to_owned() } else { phrases.join("; ") };
    Problem::of(Kind::NotCovered, param, format!("no rollup counts {what} in the requested way: {phrases}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEHRAN_MIDNIGHT: i64 = 1_795_811_400;
    const BERLIN_MIDNIGHT: i64 = 1_795_820_400;

    fn choose(declared: &str, field: &str, edge: i64) -> Result<String, Problem> {
        let rollups = Rollups::parse("", declared).unwrap();
        let filter = Filter::parse(&format!("{field}:eq:a")).unwrap();
        let filters = [("first", &filter)];
        let edges = [edge, edge + DAY];
        let reader = &Reader::default();
        let needs = Needs { counts: Counts::Users, reader, filters: &filters, edges: &edges, zone: "there" };
        Source::choose(&rollups, &Reach::default(), needs, edge + DAY).map(|source| source.rollup.name)
    }

    #[track_caller]
    fn check_refused(declared: &str, field: &str, edge: i64, param: &str, phrase: &str) {
        let problem = choose(declared, field, edge).unwrap_err();
        assert_eq!((problem.kind, &*problem.errors[0].param), (Kind::NotCovered, param));
        assert!(problem.errors[0].reason.contains(phrase), "{}", problem.errors[0].reason);
    }

    #[test]
    fn users_are_read_from_the_coarsest_rollup_whose_buckets_fit_the_periods() {
        let built_in = Rollups::built_in().to_string();
        assert_eq!(choose(&built_in, "event", 1_795_824_000).unwrap(), "users_daily");
        assert_eq!(choose(&built_in, "event", BERLIN_MIDNIGHT).unwrap(), "users_hourly");
    }

    #[test]
    fn the_refusal_names_what_no_rollup_has() {
        let built_in = Rollups::built_in().to_string();
        check_refused(&built_in, "event", TEHRAN_MIDNIGHT, "tz", "need 15m");
        check_refused(&built_in, "country", 1_795_824_000, "first", "has no dimension `country`");
        check_refused("", "event", 1_795_824_000, "first", "none with this measure is declared");
    }

    #[test]
    fn a_rollup_with_a_where_is_never_read() {
        let some = "[[rollup]]\nname = \"some\"\ngrain = \"day\"\ndimensions = [\"event\"]\n\
                    where = { country = \"DE\" }\nmeasures = { users = \"uniq_exact(user)\" }\n";
        check_refused(some, "event", 1_795_824_000, "filter", "does not hold all events");
    }
}
