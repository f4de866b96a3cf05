//! Plans a query: chooses the rollups from which each measure is read.
//!
//! A rollup is a candidate for a measure under four conditions:
//!
//! - It has the measure and the dimensions of the query.
//! - For each filter, the rollup has the filtered field as a dimension, or every event that meets the rollup's `where`
//!   also meets the filter.
//! - Every event that meets the filters also meets the rollup's `where`.
//! - Each bucket of the window consists of whole buckets of the rollup.
//!
//! A candidate that has every event of the window is preferred. If several candidates are equal in this respect, the
//! coarsest is chosen, then the one with the fewest dimensions, then the one that is declared first.
//!
//! The cost of a distinct count grows with the number of values in the buckets that are merged. So a distinct count is
//! read from a coarser rollup where whole buckets of that rollup fit into the window's buckets. Only the time around
//! the edges of the window's buckets is read from the chosen candidate. Rows of different rollups are joined by bucket
//! and dimensions.
//!
//! All moments are seconds since 1970. Pure: no clock, no I/O.

use std::cmp::Reverse;

use schemas::rollup::{Condition, Dimension, Measure, Rollup, Rollups};

use super::grain::{self, Grain};
use super::params::Query;
use super::window::Window;
use crate::access::Reader;
use crate::filter::Filter;
use crate::problem::{BadParameter, Kind, Problem};
use crate::reach::Reach;

/// Seconds of a day in UTC.
const DAY: i64 = 86_400;

/// Maximum number of buckets of a coarse rollup that are replaced by buckets of a finer rollup, because a bucket of the
/// window begins or ends within them. Each replaced bucket adds a condition to the statement.
const MAX_EDGES: usize = 32;

/// Which rollups a query reads, and what it reads from each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// One part for each set of rollups that is read.
    pub(super) parts: Vec<Part>,
}

/// Measures that are read from the same rollups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// One rollup, or a coarse rollup and a finer rollup for the edges of the window's buckets. Each source has every
    /// measure of the part.
    pub(super) sources: Vec<Source>,
    /// The measures, each with its place in the query.
    pub(super) measures: Vec<(usize, Measure)>,
    /// The column of each dimension of the query, in the order of the query.
    pub(super) keys: Vec<String>,
    /// Buckets that begin before this moment may lack events; `None` if no bucket of the window lacks events.
    pub(super) complete_from: Option<i64>,
}

/// A rollup, and which of its buckets are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) rollup: Rollup,
    /// The column of each filter of the query; `None` for a filter that every row of the rollup meets.
    pub(super) filtered: Vec<Option<String>>,
    pub(super) span: Span,
}

/// Which buckets of a rollup are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Span {
    /// All of the rollup's buckets in the window.
    Whole,
    /// The rollup's buckets in the window, except those that begin at these moments.
    Without(Vec<i64>),
    /// The rollup's buckets in the window that lie within one of these ranges (start, exclusive end).
    Within(Vec<(i64, i64)>),
}

impl Plan {
    /// The part that reads a measure, and the place of the measure in that part. `measure` is the place of the measure
    /// in the query.
    pub(super) fn part_of(&self, measure: usize) -> Option<(&Part, usize)> {
        let place = |part: &Part| part.measures.iter().position(|(at, _)| *at == measure);
        self.parts.iter().find_map(|part| Some((part, place(part)?)))
    }
}

impl Part {
    /// The measures of this part that are distinct counts, by their place in the query.
    pub(super) fn distinct(&self) -> impl Iterator<Item = usize> {
        self.measures.iter().filter(|(_, measure)| measure.is_distinct()).map(|(place, _)| *place)
    }

    /// Names of the rollups that are read.
    pub(super) fn rollups(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.rollup.name.as_str())
    }
}

/// Chooses rollups for measures of a query.
pub(super) struct Planner<'a> {
    query: &'a Query,
    /// The reader of the answer. Refusals name only measures that the reader may read.
    reader: &'a Reader,
    /// The moment of the query.
    now: i64,
    reach: &'a Reach,
    allowed: Vec<&'a Rollup>,
    /// Names of rollups that the aggregator declares differently from this process, or not at all.
    differing: Vec<&'a str>,
    /// The dimensions of the query, as rollups declare them.
    dimensions: Vec<Dimension>,
    /// The fields of the query's filters, as rollups declare them.
    filters: Vec<Dimension>,
}

impl<'a> Planner<'a> {
    /// Resolves the names of dimensions, filters and rollups in a query.
    ///
    /// # Errors
    /// A name is unknown or ambiguous, or the query names a rollup that the aggregator declares differently or not at
    /// all.
    pub(super) fn new(
        rollups: &'a Rollups,
        reach: &'a Reach,
        query: &'a Query,
        reader: &'a Reader,
        now: i64,
    ) -> Result<Self, Problem> {
        let field = |name: &String, param| resolve(rollups, name, param);
        let differing = rollups.iter().filter(|rollup| reach.differs(rollup));
        let differing: Vec<_> = differing.map(|rollup| &*rollup.name).collect();
        Ok(Self {
            query,
            reader,
            now,
            reach,
            allowed: allowed(rollups, &differing, query)?,
            differing,
            dimensions: query
                .dimensions
                .iter()
                .map(|name| field(name, "dimensions"))
                .collect::<Result<_, _>>()?,
            filters: query
                .filters
                .iter()
                .map(|filter| field(&filter.field, "filter"))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The plan for all measures of the query.
    ///
    /// # Errors
    /// There is a measure that no rollup covers, or that rollups define differently.
    pub(super) fn plan(&self, window: &Window) -> Result<Plan, Problem> {
        self.plan_of(0..self.query.measures.len(), window)
    }

    /// The plan for some measures, by their place in the query.
    pub(super) fn plan_of(
        &self,
        measures: impl IntoIterator<Item = usize>,
        window: &Window,
    ) -> Result<Plan, Problem> {
        let mut parts: Vec<Part> = Vec::new();
        for at in measures {
            let (measure, mut chosen) = self.choose(&self.query.measures[at], window)?;
            chosen.measures = vec![(at, measure.clone())];
            match parts.iter_mut().find(|part| part.sources == chosen.sources) {
                Some(part) => part.measures.append(&mut chosen.measures),
                None => parts.push(chosen),
            }
        }
        Ok(Plan { parts })
    }

    /// Chooses the best of the rollups that have the measure and can answer the query. Returns the measure, and a part
    /// that reads the chosen rollup. The part has no measures yet: the caller adds them.
    fn choose(&self, name: &str, window: &Window) -> Result<(&'a Measure, Part), Problem> {
        let declared = self.declared(name)?;
        let mut failures = Vec::new();
        let mut candidates = Vec::new();
        for (place, (rollup, measure)) in declared.iter().copied().enumerate() {
            let mut lacks = self.lacking(rollup);
            if !grain::has_edges(rollup.grain, &window.edges) {
                lacks.push(("grain", too_coarse(rollup, window)));
            }
            if lacks.is_empty() {
                let part = self.part(rollup, measure, &declared, window);
                let key = (
                    part.complete_from.is_some(),
                    Reverse(rollup.grain.length()),
                    rollup.dimensions.len(),
                    place,
                );
                candidates.push((key, measure, part));
            } else {
                failures.push((&*rollup.name, lacks));
            }
        }
        let best = candidates.into_iter().min_by_key(|(key, ..)| *key);
        best.map(|(_, measure, part)| (measure, part)).ok_or_else(|| self.none_covers(name, &failures))
    }

    /// The part of the plan that reads `measure` from `rollup`. A distinct count is partly read from a coarser rollup
    /// if possible, which is cheaper.
    fn part(
        &self,
        rollup: &'a Rollup,
        measure: &Measure,
        declared: &[(&'a Rollup, &'a Measure)],
        window: &Window,
    ) -> Part {
        let coarser = declared.iter().enumerate().filter_map(|(place, (coarse, _))| {
            let (sources, complete_from) = self.split(coarse, rollup, window)?;
            let is_usable = measure.is_distinct() && self.lacking(coarse).is_empty();
            let key =
                (complete_from.is_some(), Reverse(coarse.grain.length()), coarse.dimensions.len(), place);
            is_usable.then_some((key, sources, complete_from))
        });
        let alone = self.complete_from(rollup, window.from());
        let best = coarser.min_by_key(|(key, ..)| *key).filter(|(key, ..)| !key.0 || alone.is_some());
        let (sources, complete_from) = match best {
            Some((_, sources, complete_from)) => (sources, complete_from),
            None => (vec![self.source(rollup, Span::Whole)], alone),
        };
        let keys = self.dimensions.iter().map(Dimension::column_name).collect();
        Part { sources, measures: Vec::new(), keys, complete_from }
    }

    /// Splits the window between two rollups. A bucket of `coarse` is divided if a bucket of the window begins or ends
    /// within it. Instead of a divided bucket, the buckets of `fine` that lie in it are read; the rest of the window is
    /// read from `coarse`. Also returns the moment before which buckets may lack events; `None` if none lacks events.
    ///
    /// Returns `None` if `coarse` does not have longer buckets than `fine`, or if one of the rollups has one bucket for
    /// all time. Also returns `None` if no bucket of `coarse` is divided, if all are divided, or if more than
    /// [`MAX_EDGES`] are divided.
    fn split(&self, coarse: &Rollup, fine: &Rollup, window: &Window) -> Option<(Vec<Source>, Option<i64>)> {
        let length = coarse.grain.length()? / 1000;
        if length <= fine.grain.length()? / 1000 {
            return None;
        }
        let floor = |at: i64| at - at.rem_euclid(length);
        let mut split: Vec<_> =
            window.edges.iter().filter(|edge| **edge != floor(**edge)).map(|edge| floor(*edge)).collect();
        split.dedup();
        let all = (window.to() - 1).div_euclid(length) - window.from().div_euclid(length) + 1;
        if split.is_empty() || split.len() > MAX_EDGES || usize::try_from(all).ok()? <= split.len() {
            return None;
        }
        let within: Vec<_> = split.iter().map(|start| (*start, *start + length)).collect();
        let starts_split = split[0] < window.from();
        let (first_coarse, first_fine) =
            if starts_split { (split[0] + length, window.from()) } else { (window.from(), split[0]) };
        let complete_from =
            self.complete_from(coarse, first_coarse).max(self.complete_from(fine, first_fine));
        let sources =
            vec![self.source(coarse, Span::Without(split)), self.source(fine, Span::Within(within))];
        Some((sources, complete_from))
    }

    fn source(&self, rollup: &Rollup, span: Span) -> Source {
        let column =
            |dimension: &Dimension| rollup.dimensions.contains(dimension).then(|| dimension.column_name());
        Source { filtered: self.filters.iter().map(column).collect(), rollup: rollup.clone(), span }
    }

    /// The moment from which on the rollup has every event; `None` if the rollup has every event since `start`.
    fn complete_from(&self, rollup: &Rollup, start: i64) -> Option<i64> {
        let retained =
            rollup.retention_days.map(|days| self.now - self.now.rem_euclid(DAY) - i64::from(days) * DAY);
        let since = self.reach.since.get(&rollup.name).copied();
        retained.max(since).filter(|complete_from| *complete_from > start)
    }

    /// The rollups that declare the measure.
    ///
    /// # Errors
    /// No rollup declares the measure, or rollups declare it differently.
    fn declared(&self, name: &str) -> Result<Vec<(&'a Rollup, &'a Measure)>, Problem> {
        let measure = |rollup: &'a Rollup| {
            rollup.measures.iter().find(|(there, _)| there == name).map(|(_, measure)| (rollup, measure))
        };
        let declared: Vec<_> = self.allowed.iter().copied().filter_map(measure).collect();
        let Some((_, first)) = declared.first() else {
            let measures = self.allowed.iter().flat_map(|rollup| &rollup.measures);
            let mut names: Vec<_> =
                measures.map(|(name, _)| &**name).filter(|name| self.reader.may_read(name)).collect();
            names.sort_unstable();
            names.dedup();
            if names.is_empty() {
                names.push("none");
            }
            let reason = format!(
                "no rollup that may be read has the measure `{name}`; the measures that can be read are {}{}",
                names.join(", "),
                self.left_out()
            );
            return Err(not_covered("measures", reason));
        };
        if declared.iter().all(|(_, measure)| measure == first) {
            return Ok(declared);
        }
        let definitions: Vec<_> =
            declared.iter().map(|(rollup, measure)| format!("{measure} in `{}`", rollup.name)).collect();
        let reason =
            format!("`{name}` is {}; choose one with the parameter `rollup`", definitions.join(", "));
        Err(not_covered("rollup", reason))
    }

    /// The reasons why a rollup cannot answer the query, except for its grain; empty if there is none. Each reason has
    /// the parameter that the rollup does not satisfy, and a phrase for the error message.
    fn lacking(&self, rollup: &Rollup) -> Vec<(&'static str, String)> {
        let mut lacks = Vec::new();
        for (name, dimension) in self.query.dimensions.iter().zip(&self.dimensions) {
            if !rollup.dimensions.contains(dimension) {
                lacks.push(("dimensions", format!("has no dimension `{name}`")));
            }
        }
        for (filter, dimension) in self.query.filters.iter().zip(&self.filters) {
            if !rollup.dimensions.contains(dimension) && !is_met_by_all(filter, dimension, rollup) {
                lacks.push(("filter", format!("has no dimension `{}`", filter.field)));
            }
        }
        for condition in &rollup.conditions {
            if !self.is_implied(condition) {
                let values = condition.values.join("|");
                lacks
                    .push(("filter", format!("holds only events that meet {}:in:{values}", condition.field)));
            }
        }
        lacks
    }

    /// Whether every event that meets the query's filters also meets the condition.
    fn is_implied(&self, condition: &Condition) -> bool {
        let all = self.query.filters.iter().zip(&self.filters);
        let of_field: Vec<_> =
            all.filter(|(_, dimension)| **dimension == condition.field).map(|(filter, _)| filter).collect();
        let Some(values) = of_field.iter().find_map(|filter| filter.values()) else { return false };
        let mut passing = values.iter().filter(|value| of_field.iter().all(|filter| filter.is_met_by(value)));
        passing.all(|value| condition.values.contains(value))
    }

    /// The problem for a measure that no rollup covers. The closest rollup is the one that lacks the fewest things; the
    /// problem names the first parameter that this rollup does not satisfy. The reason says what each rollup lacks.
    fn none_covers(&self, name: &str, failures: &[(&str, Vec<(&'static str, String)>)]) -> Problem {
        let closest = failures.iter().min_by_key(|(_, lacks)| lacks.len());
        let param = closest.map_or("measures", |(_, lacks)| lacks[0].0);
        let phrases: Vec<_> = failures
            .iter()
            .map(|(rollup, lacks)| {
                let lacks: Vec<_> = lacks.iter().map(|(_, phrase)| phrase.as_str()).collect();
                format!("`{rollup}` {}", lacks.join(" and "))
            })
            .collect();
        let reason =
            format!("no rollup covers `{name}` for this query: {}{}", phrases.join("; "), self.left_out());
        not_covered(param, reason)
    }

    /// The end of an error message: the rollups that were not considered because the aggregator declares them
    /// differently or not at all.
    fn left_out(&self) -> String {
        match &self.differing[..] {
            [] => String::new(),
            names => format!(
                "; rollups that were not considered, because the aggregator declares them differently or not at \
                 all: {}",
                names.join(", ")
            ),
        }
    }
}

/// The rollups that may be read.
fn allowed<'a>(rollups: &'a Rollups, differing: &[&str], query: &Query) -> Result<Vec<&'a Rollup>, Problem> {
    if query.rollups.is_empty() {
        return Ok(rollups.iter().filter(|rollup| !differing.contains(&&*rollup.name)).collect());
    }
    if let Some(name) = query.rollups.iter().find(|name| differing.contains(&name.as_str())) {
        let reason = format!(
            "the aggregator declares `{name}` differently from this service, or not at all: both need the \
             same ROLLUPS_FILE"
        );
        return Err(not_covered("rollup", reason));
    }
    let names = || rollups.iter().map(|rollup| &*rollup.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| {
        let missing =
            || not_covered("rollup", format!("there is no rollup `{name}`; the rollups are {}", names()));
        rollups.get(name).ok_or_else(missing)
    };
    query.rollups.iter().map(find).collect()
}

/// Finds a dimension by its declared name (`props.plan`), or else by the name of its column in the rollup's view
/// (`plan`).
fn resolve(rollups: &Rollups, name: &str, param: &str) -> Result<Dimension, Problem> {
    let mut all: Vec<&Dimension> = Vec::new();
    for rollup in rollups.iter() {
        let conditions = rollup.conditions.iter().map(|condition| &condition.field);
        for dimension in rollup.dimensions.iter().chain(conditions) {
            if !all.contains(&dimension) {
                all.push(dimension);
            }
        }
    }
    if let Some(exact) = all.iter().find(|dimension| dimension.to_string() == name) {
        return Ok((*exact).clone());
    }
    let named: Vec<_> = all.iter().filter(|dimension| dimension.column_name() == name).collect();
    let listed =
        |dimensions: &[&Dimension]| dimensions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match named[..] {
        [one] => Ok((**one).clone()),
        [] => Err(not_covered(
            param,
            format!("no rollup has the dimension `{name}`; the dimensions are {}", listed(&all)),
        )),
        _ => {
            let named: Vec<_> = named.into_iter().copied().collect();
            Err(not_covered(param, format!("`{name}` may be any of {}; use one of these", listed(&named))))
        }
    }
}

/// The phrase for a rollup whose buckets are too coarse for the buckets of the window.
fn too_coarse(rollup: &Rollup, window: &Window) -> String {
    let has = match rollup.grain {
        schemas::rollup::Grain::None => "has one bucket for all time".to_owned(),
        grain => format!("has buckets of grain {}", grain.name()),
    };
    let asked = match window.grain {
        Grain::None => "this window".to_owned(),
        grain => format!("grain {}", grain.name()),
    };
    let zone = window.calendar.zone.iana_name().unwrap_or("UTC");
    match grain::needed(&window.edges) {
        Some(needed) => format!("{has}, and {asked} in {zone} needs buckets of grain {}", needed.name()),
        None => format!("{has}, and not all buckets of {asked} in {zone} begin and end at a full minute"),
    }
}

/// Whether every event that meets the `where` of a rollup also meets the filter.
fn is_met_by_all(filter: &Filter, dimension: &Dimension, rollup: &Rollup) -> bool {
    let of_field = rollup.conditions.iter().find(|condition| condition.field == *dimension);
    of_field.is_some_and(|condition| condition.values.iter().all(|value| filter.is_met_by(value)))
}

fn not_covered(param: &str, reason: String) -> Problem {
    Problem { kind: Kind::NotCovered, errors: vec![BadParameter { param: param.to_owned(), reason }] }
}

#[cfg(test)]
mod tests;
