//! The statement of a retention table.
//!
//! The rollup stores distinct users as a `uniqExact` state, which is a set of user hashes. A `groupUniqArray` state of
//! the same hashes has the same bytes. So the statement casts the stored state to `groupUniqArray` to read the hashes
//! themselves. For each user, it then computes two numbers with a bit for each period: the first has the periods in
//! which the user had the event `first`, the second the periods in which the user had the event `again`.
//!
//! Invariant: texts of a request are bound as parameters, and are never part of the statement.

use super::Periods;
use super::params::Retention;
use crate::filter::Filter;
use crate::people::source::Source;
use crate::query::sql::Parameter;

/// The text of the statement, and the query parameters that ClickHouse binds, by name.
pub(super) fn select(
    request: &Retention,
    periods: &Periods,
    source: &Source,
    tenant: &str,
) -> (String, Vec<(String, Parameter)>) {
    let cohorts = periods.window.buckets();
    let starts = periods.edges[..periods.edges.len() - 1].to_vec();
    let text = |name: &str, filter: &Filter| (name.to_owned(), Parameter::Texts(filter.test.bound()));
    let mut parameters = vec![
        ("tenant".to_owned(), Parameter::Texts(vec![tenant.to_owned()])),
        ("starts".to_owned(), Parameter::Moments(starts)),
        text("first", request.first()),
        text("again", request.again()),
    ];
    let filters = request.filters.iter().enumerate();
    parameters.extend(filters.map(|(at, filter)| text(&format!("filter{at}"), filter)));
    let users = |parameter: &str, event: &Filter, bits: &str, to: i64| {
        let conditions = conditions(request, source, (parameter, event), (periods.edges[0], to));
        format!(
            "        SELECT {bits}, arrayJoin(groupUniqArrayMerge(CAST(toString(S.`{}`), \
             'AggregateFunction(groupUniqArray, UInt64)'))) AS User\n        FROM {} AS S\n        WHERE {}\n        \
             GROUP BY indexOf({{starts:Array(UInt32)}}, roundDown(toUnixTimestamp(S.bucket), {{starts:Array(UInt32)}})) AS Period",
            source.measure,
            source.rollup.source(),
            conditions.join(" AND "),
        )
    };
    let bit = "bitShiftLeft(toUInt64(1), toUInt64(Period - 1))";
    let first = users(
        "first",
        request.first(),
        &format!("{bit} AS Bits, toUInt64(0) AS Later"),
        periods.edges[cohorts],
    );
    let again = users(
        "again",
        request.again(),
        &format!("toUInt64(0) AS Bits, {bit} AS Later"),
        periods.edges[periods.edges.len() - 1],
    );
    let select = format!(
        "SELECT toInt64(Cohort) AS start, arrayConcat([count()], sumForEach(arrayMap(K -> toUInt64(bitTest(Again, \
         Cohort + K)), range(0, {})))) AS figures\nFROM (\n  SELECT arrayJoin(bitPositionsToArray(First)) AS Cohort, \
         Again\n  FROM (\n    SELECT User, groupBitOr(Bits) AS First, groupBitOr(Later) AS Again FROM \
         (\n{first}\n        UNION ALL\n{again}\n    )\n    GROUP BY User\n    HAVING First != 0\n  )\n)\nGROUP BY Cohort",
        request.periods + 1,
    );
    (select, parameters)
}

/// The conditions of the `WHERE` clause that selects the rollup's rows for the filter `event`. `parameter` names the
/// query parameter that has the values of this filter.
fn conditions(
    request: &Retention,
    source: &Source,
    (parameter, event): (&str, &Filter),
    (from, to): (i64, i64),
) -> Vec<String> {
    let mut all = vec![
        "S.tenant IN {tenant:Array(String)}".to_owned(),
        format!("S.bucket >= toDateTime({from}, 'UTC')"),
        format!("S.bucket < toDateTime({to}, 'UTC')"),
        event.test.condition(&source.column(event), parameter),
    ];
    let filters = request.filters.iter().enumerate();
    all.extend(
        filters.map(|(at, filter)| filter.test.condition(&source.column(filter), &format!("filter{at}"))),
    );
    all
}
