//! Routing: which rollup answers each measure.
//!
//! A rollup is a candidate if it has the measure, the dimensions and the filtered fields, if each bucket of the
//! window is made of whole buckets of its own, and if the filters imply its `where`. Of several, those count that
//! keep rows for as long as the window reaches; then the coarsest, the one with fewest dimensions, the first of
//! the file. Measures of different rollups are joined on their keys. Pure: no clock, no I/O.

use std::cmp::Reverse;

use schemas::rollup::{Condition, Dimension, Measure, Rollup, Rollups};

use super::grain::{self, Grain};
use super::params::Query;
use super::window::Window;
use crate::filter::Filter;
use crate::problem::{BadParameter, Kind, Problem};

/// Seconds of a day in UTC.
const DAY: i64 = 86_400;

/// What is read from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// One for each rollup that is read, at least one.
    pub(super) parts: Vec<Part>,
}

/// What is read from one rollup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) rollup: Rollup,
    /// The measures, by their place in the query.
    pub(super) measures: Vec<(usize, Measure)>,
    /// The column of each dimension of the query.
    pub(super) keys: Vec<String>,
    /// The column of each filter of the query; none where every row of the rollup meets it.
    pub(super) filtered: Vec<Option<String>>,
    /// Before this moment the rollup keeps no rows; from the beginning if absent.
    pub(super) kept_from: Option<i64>,
}

impl Plan {
    /// The part that has a measure of the query, and its place there.
    pub(super) fn part_of(&self, measure: usize) -> (&Part, usize) {
        let place = |part: &Part| part.measures.iter().position(|(at, _)| *at == measure);
        let found = self.parts.iter().find_map(|part| Some((part, place(part)?)));
        found.expect("each measure of the query has a part")
    }
}

/// The query's names, as rollups have them.
struct Fields {
    dimensions: Vec<Dimension>,
    filters: Vec<Dimension>,
}

/// Chooses a rollup for each measure of the query, at the moment `now`.
pub(super) fn plan(rollups: &Rollups, query: &Query, window: &Window, now: i64) -> Result<Plan, Problem> {
    let allowed = allowed(rollups, query)?;
    let field = |name: &String, param| resolve(rollups, name, param);
    let fields = Fields {
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
    };
    let mut parts: Vec<Part> = Vec::new();
    for (at, name) in query.measures.iter().enumerate() {
        let (rollup, measure) = choose(&allowed, name, query, &fields, window, now)?;
        match parts.iter_mut().find(|part| part.rollup.name == rollup.name) {
            Some(part) => part.measures.push((at, measure.clone())),
            None => parts.push(part(rollup, (at, measure.clone()), &fields, now)),
        }
    }
    Ok(Plan { parts })
}

fn part(rollup: &Rollup, measure: (usize, Measure), fields: &Fields, now: i64) -> Part {
    let column =
        |dimension: &Dimension| rollup.dimensions.contains(dimension).then(|| dimension.column_name());
    Part {
        measures: vec![measure],
        keys: fields.dimensions.iter().map(Dimension::column_name).collect(),
        filtered: fields.filters.iter().map(column).collect(),
        kept_from: kept_from(rollup, now),
        rollup: rollup.clone(),
    }
}

/// The rollups that may answer.
fn allowed<'a>(rollups: &'a Rollups, query: &Query) -> Result<Vec<&'a Rollup>, Problem> {
    if query.rollups.is_empty() {
        return Ok(rollups.iter().collect());
    }
    let names = || rollups.iter().map(|rollup| &*rollup.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| {
        let missing = || not_covered("rollup", format!("there is no rollup `{name}`; there are {}", names()));
        rollups.get(name).ok_or_else(missing)
    };
    query.rollups.iter().map(find).collect()
}

/// The dimension that a name stands for: as it is declared (`props.plan`), or as a view calls it (`plan`).
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
            format!("no rollup has the dimension `{name}`; there are {}", listed(&all)),
        )),
        _ => {
            let named: Vec<_> = named.into_iter().copied().collect();
            Err(not_covered(param, format!("`{name}` may be any of {}; write which", listed(&named))))
        }
    }
}

/// The best of the rollups that have the measure and cover the query.
fn choose<'a>(
    allowed: &[&'a Rollup],
    name: &str,
    query: &Query,
    fields: &Fields,
    window: &Window,
    now: i64,
) -> Result<(&'a Rollup, &'a Measure), Problem> {
    let declared = declared(allowed, name)?;
    let mut failures = Vec::new();
    let mut candidates = Vec::new();
    for (place, (rollup, measure)) in declared.iter().enumerate() {
        let lacks = lacking(rollup, query, fields, window);
        if lacks.is_empty() {
            let reaches = kept_from(rollup, now).is_none_or(|kept| kept <= window.from());
            let key = (!reaches, Reverse(rollup.grain.length()), rollup.dimensions.len(), place);
            candidates.push((key, (*rollup, *measure)));
        } else {
            failures.push((&*rollup.name, lacks));
        }
    }
    let best = candidates.into_iter().min_by_key(|(key, _)| *key).map(|(_, best)| best);
    best.ok_or_else(|| none_covers(name, &failures))
}

/// The rollups that declare the measure, all in the same way.
fn declared<'a>(allowed: &[&'a Rollup], name: &str) -> Result<Vec<(&'a Rollup, &'a Measure)>, Problem> {
    let measure = |rollup: &'a Rollup| {
        rollup.measures.iter().find(|(there, _)| there == name).map(|(_, measure)| (rollup, measure))
    };
    let declared: Vec<_> = allowed.iter().copied().filter_map(measure).collect();
    let Some((_, first)) = declared.first() else {
        let mut names: Vec<_> =
            allowed.iter().flat_map(|rollup| &rollup.measures).map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names.dedup();
        let reason = format!("no rollup has the measure `{name}`; there are {}", names.join(", "));
        return Err(not_covered("measures", reason));
    };
    if declared.iter().all(|(_, measure)| measure == first) {
        return Ok(declared);
    }
    let definitions: Vec<_> =
        declared.iter().map(|(rollup, measure)| format!("{measure} in `{}`", rollup.name)).collect();
    let reason = format!("`{name}` is {}; name the rollup", definitions.join(", "));
    Err(not_covered("rollup", reason))
}

/// What a rollup lacks to answer: the parameter that asks for it, and a phrase.
fn lacking(rollup: &Rollup, query: &Query, fields: &Fields, window: &Window) -> Vec<(&'static str, String)> {
    let mut lacks = Vec::new();
    for (name, dimension) in query.dimensions.iter().zip(&fields.dimensions) {
        if !rollup.dimensions.contains(dimension) {
            lacks.push(("dimensions", format!("has no dimension `{name}`")));
        }
    }
    for (filter, dimension) in query.filters.iter().zip(&fields.filters) {
        if !rollup.dimensions.contains(dimension) && !is_met_by_all(filter, dimension, rollup) {
            lacks.push(("filter", format!("has no dimension `{}`", filter.field)));
        }
    }
    for condition in &rollup.conditions {
        if !is_implied(condition, query, fields) {
            let values = condition.values.join("|");
            lacks.push(("filter", format!("holds only events that meet {}:in:{values}", condition.field)));
        }
    }
    if !grain::has_edges(rollup.grain, &window.edges) {
        lacks.push(("grain", coarse(rollup, window)));
    }
    lacks
}

fn coarse(rollup: &Rollup, window: &Window) -> String {
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
        Some(needed) => format!("{has}, and {asked} in {zone} needs {}", needed.name()),
        None => format!("{has}, and the buckets of {asked} in {zone} do not begin with a minute"),
    }
}

/// Whether the `where` of a rollup leaves only events that meet the filter.
fn is_met_by_all(filter: &Filter, dimension: &Dimension, rollup: &Rollup) -> bool {
    let of_field = rollup.conditions.iter().find(|condition| condition.field == *dimension);
    of_field.is_some_and(|condition| condition.values.iter().all(|value| filter.is_met_by(value)))
}

/// Whether the filters let through only events that meet the condition.
fn is_implied(condition: &Condition, query: &Query, fields: &Fields) -> bool {
    let all = query.filters.iter().zip(&fields.filters);
    let of_field: Vec<_> =
        all.filter(|(_, dimension)| **dimension == condition.field).map(|(filter, _)| filter).collect();
    let Some(values) = of_field.iter().find_map(|filter| filter.values()) else { return false };
    let mut passing = values.iter().filter(|value| of_field.iter().all(|filter| filter.is_met_by(value)));
    passing.all(|value| condition.values.contains(value))
}

/// Before this moment the rollup keeps no rows.
fn kept_from(rollup: &Rollup, now: i64) -> Option<i64> {
    let days = i64::from(rollup.retention_days?);
    Some(now - now.rem_euclid(DAY) - days * DAY)
}

/// Names the parameter that the closest rollup fails, and what each of them lacks.
fn none_covers(name: &str, failures: &[(&str, Vec<(&'static str, String)>)]) -> Problem {
    let closest = failures.iter().min_by_key(|(_, lacks)| lacks.len());
    let param = closest.map_or("measures", |(_, lacks)| lacks[0].0);
    let phrases: Vec<_> = failures
        .iter()
        .map(|(rollup, lacks)| {
            let lacks: Vec<_> = lacks.iter().map(|(_, phrase)| phrase.as_str()).collect();
            format!("`{rollup}` {}", lacks.join(" and "))
        })
        .collect();
    not_covered(param, format!("no rollup has `{name}` like this: {}", phrases.join("; ")))
}

fn not_covered(param: &str, reason: String) -> Problem {
    Problem { kind: Kind::NotCovered, errors: vec![BadParameter { param: param.to_owned(), reason }] }
}

#[cfg(test)]
mod tests;
