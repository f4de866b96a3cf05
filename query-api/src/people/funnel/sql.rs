//! The two statements of a funnel. The first counts the events that the funnel would read, the second counts the users
//! who reach each step.
//!
//! `windowFunnel` sorts the events of a user by time, and events of the same millisecond by step. So events of the same
//! millisecond count in the order of the steps. Invariant: texts of a request are bound as parameters, and are never
//! part of a statement.

use schemas::rollup::Column;

use super::params::Funnel;
use crate::filter::Filter;
use crate::people::source::Source;
use crate::problem::{Kind, Problem};
use crate::query::sql::Parameter;
use crate::query::window::Window;

/// The query parameters that ClickHouse binds, by name.
type Parameters = Vec<(String, Parameter)>;

/// The SQL expression for the user of an event: `user_id`, or `device_id` if `user_id` is empty. Rollups identify users
/// in the same way.
const USER: &str = "if(E.user_id != '', E.user_id, E.device_id)";

/// The statement that counts the events of all steps from the hour `from` to the hour `to` (exclusive).
pub(super) fn size(
    source: &Source,
    events: &Filter,
    [from, to]: [i64; 2],
    tenant: &str,
) -> (String, Parameters) {
    let select = format!(
        "SELECT toInt64(0) AS start, [toUInt64(sum(S.`{}`))] AS figures\nFROM {} AS S\nWHERE S.tenant IN \
         {{tenant:Array(String)}} AND S.bucket >= toDateTime({from}, 'UTC') AND S.bucket < toDateTime({to}, 'UTC') AND {}",
        source.measure,
        source.rollup.source(),
        events.test.condition(&source.column(events), "events"),
    );
    (select, vec![tenant_parameter(tenant), texts("events", events)])
}

/// The statement that counts the users who reach each step.
///
/// # Errors
/// A filter names a field that is not a column of raw events.
pub(super) fn select(
    request: &Funnel,
    events: &Filter,
    window: &Window,
    tenant: &str,
) -> Result<(String, Parameters), Problem> {
    let mut parameters = vec![tenant_parameter(tenant), texts("events", events)];
    let mut steps = Vec::new();
    for (at, step) in request.steps.iter().enumerate() {
        parameters.push((format!("step{at}"), Parameter::Texts(step.events.clone())));
        steps.push(format!("E.event IN {{step{at}:Array(String)}}"));
    }
    let mut conditions = vec![
        "E.tenant IN {tenant:Array(String)}".to_owned(),
        format!("E.client_time >= fromUnixTimestamp64Milli({}, 'UTC')", window.from() * 1000),
        format!("E.client_time < fromUnixTimestamp64Milli({}, 'UTC')", window.to() * 1000),
        events.test.condition("E.event", "events"),
        "(E.user_id != '' OR E.device_id != '')".to_owned(),
    ];
    for (at, filter) in request.filters.iter().enumerate() {
        let name = format!("filter{at}");
        parameters.push(texts(&name, filter));
        conditions.push(filter.test.condition(&format!("E.{}", column(filter)?.name()), &name));
    }
    let select = format!(
        "SELECT toInt64(0) AS start, sumForEach(arrayMap(K -> toUInt64(Level >= K), range(1, {}))) AS figures\nFROM \
         (\n  SELECT windowFunnel({})(toUInt64(toUnixTimestamp64Milli(E.client_time)), {}) AS Level\n  FROM events AS \
         E\n  WHERE {}\n  GROUP BY {USER}\n)",
        request.steps.len() + 1,
        u64::from(request.within_seconds) * 1000,
        steps.join(", "),
        conditions.join(" AND "),
    );
    Ok((select, parameters))
}

fn tenant_parameter(tenant: &str) -> (String, Parameter) {
    ("tenant".to_owned(), Parameter::Texts(vec![tenant.to_owned()]))
}

fn texts(name: &str, filter: &Filter) -> (String, Parameter) {
    (name.to_owned(), Parameter::Texts(filter.test.bound()))
}

fn column(filter: &Filter) -> Result<Column, Problem> {
    Column::ALL.into_iter().find(|column| column.name() == filter.field).ok_or_else(|| {
        let names: Vec<_> = Column::ALL.into_iter().map(Column::name).collect();
        let reason = format!("a funnel cannot filter by `{}`, only by {}", filter.field, names.join(", "));
        Problem::of(Kind::NotCovered, "filter", reason)
    })
}
