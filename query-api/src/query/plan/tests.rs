use jiff::Timestamp;

use super::*;
use crate::access::Reader;
use crate::reach::Reach;

const MORE: &str = r#"
[[rollup]]
name = "views_daily"
grain = "day"
dimensions = ["country"]
where = { event = ["view", "play"] }
measures = { shown = "count" }

[[rollup]]
name = "spent_daily"
grain = "day"
dimensions = ["props.plan"]
measures = { value = "sum(sequence)" }
"#;

fn now() -> i64 {
    "2026-11-28T14:20:30Z".parse::<Timestamp>().unwrap().as_second()
}

fn planned(given: &[(&str, &str)]) -> Result<Plan, Problem> {
    planned_with(given, &Reach::default())
}

fn planned_with(given: &[(&str, &str)], reach: &Reach) -> Result<Plan, Problem> {
    planned_for(&Reader::default(), given, reach)
}

fn planned_for(reader: &Reader, given: &[(&str, &str)], reach: &Reach) -> Result<Plan, Problem> {
    let pairs: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let query = Query::parse(&pairs).unwrap();
    let window = Window::new((query.from, query.to), query.grain, query.calendar.clone(), now()).unwrap();
    let rollups = Rollups::parse("", &format!("{}{MORE}", Rollups::built_in())).unwrap();
    Planner::new(&rollups, reach, &query, reader, now())?.plan(&window)
}

#[track_caller]
fn check(given: &[(&str, &str)], rollups: &[&str]) {
    check_with(given, &Reach::default(), rollups);
}

#[track_caller]
fn check_with(given: &[(&str, &str)], reach: &Reach, rollups: &[&str]) {
    let plan = planned_with(given, reach).unwrap();
    let names: Vec<_> = plan.parts.iter().flat_map(Part::rollups).collect();
    assert_eq!(names, rollups, "{given:?}");
}

#[track_caller]
fn check_refused(given: &[(&str, &str)], param: &str, words: &[&str]) {
    let problem = planned(given).unwrap_err();
    assert_eq!((problem.kind, &*problem.errors[0].param), (Kind::NotCovered, param), "{problem:?}");
    for word in words {
        assert!(problem.detail().contains(word), "{} lacks {word}", problem.detail());
    }
}

#[test]
fn the_coarsest_rollup_with_the_fewest_dimensions_answers() {
    check(&[("from", "-7d")], &["event_daily"]);
    check(&[("from", "-7d"), ("measures", "users")], &["users_all_daily"]);
    check(&[("from", "-7d"), ("measures", "users"), ("dimensions", "event")], &["users_daily"]);
    check(&[("from", "-3h")], &["event_hourly"]);
    check(&[("from", "-30m")], &["event_minutely"]);
    check(&[("from", "-7d"), ("dimensions", "device_os")], &["event_hourly"]);
}

#[test]
fn measures_may_be_read_from_different_rollups() {
    check(
        &[("from", "-7d"), ("measures", "users,events,value"), ("rollup", "event_hourly,users_daily")],
        &["users_daily", "event_hourly"],
    );
}

#[test]
fn a_day_of_another_zone_is_read_from_smaller_buckets() {
    check(&[("from", "-7d"), ("grain", "day"), ("tz", "Asia/Singapore")], &["event_hourly"]);
    check(&[("from", "-7d"), ("grain", "day"), ("tz", "Asia/Kathmandu")], &["event_minutely"]);
}

#[test]
fn a_refusal_names_the_grain_that_is_needed() {
    let hours = [("measures", "users"), ("grain", "hour"), ("tz", "Asia/Tehran")];
    check_refused(
        &hours,
        "grain",
        &["`users_hourly` has buckets of grain hour", "needs buckets of grain 15m"],
    );
    check_refused(
        &[("measures", "votes"), ("filter", "event:eq:vote")],
        "grain",
        &["one bucket for all time"],
    );
}

#[test]
fn a_rollup_that_reaches_back_far_enough_comes_first() {
    // Both rollups have every event of the last 2 days, so the coarser rollup is chosen.
    check(
        &[("rollup", "event_minutely,event_hourly"), ("grain", "hour"), ("from", "-2d")],
        &["event_hourly"],
    );
    // `event_minutely` keeps only 7 days. If no other rollup is allowed, it is read for the whole window,
    // but the hours before these 7 days lack events.
    check(&[("rollup", "event_minutely"), ("grain", "hour"), ("from", "-30d")], &["event_minutely"]);
    let plan = planned(&[("rollup", "event_minutely"), ("grain", "hour"), ("from", "-30d")]).unwrap();
    let kept = "2026-11-21T00:00:00Z".parse::<Timestamp>().unwrap().as_second();
    assert_eq!(plan.parts[0].complete_from, Some(kept));
}

#[test]
fn filters_must_imply_the_where_of_a_rollup() {
    let shown = |filter| [("measures", "shown"), ("from", "-7d"), ("filter", filter)];
    check(&shown("event:in:play|view"), &["views_daily"]);
    let plan = planned(&shown("event:in:play|view|click"));
    assert_eq!(plan.unwrap_err().errors[0].param, "filter");
    check_refused(&[("measures", "shown"), ("from", "-7d")], "filter", &["event:in:view|play"]);
    check_refused(&shown("event:prefix:v"), "filter", &["views_daily"]);
}

#[test]
fn a_filter_that_the_where_does_not_imply_needs_a_dimension() {
    // Every event that the rollup counts meets this filter, so the statement needs no condition for the filter.
    let plan = planned(&[("measures", "shown"), ("from", "-7d"), ("filter", "event:in:play|view")]).unwrap();
    assert_eq!(plan.parts[0].sources[0].filtered, [None]);
    // The rollup counts plays and views together, so views alone cannot be read from it.
    check_refused(&[("measures", "shown"), ("from", "-7d"), ("filter", "event:eq:view")], "filter", &[]);
}

#[test]
fn a_measure_with_two_definitions_needs_the_parameter_rollup() {
    let value = [("measures", "value"), ("from", "-7d")];
    check_refused(&value, "rollup", &["sum(param_int) in `event_hourly`", "sum(sequence) in `spent_daily`"]);
    check(&[value[0], value[1], ("rollup", "spent_daily")], &["spent_daily"]);
}

#[test]
fn a_refusal_names_what_is_missing_and_what_exists() {
    check_refused(&[("measures", "visits")], "measures", &["`visits`", "events, sessions, shown, users"]);
    check_refused(&[("dimensions", "city")], "dimensions", &["`city`", "country", "props.plan"]);
    check_refused(&[("filter", "city:eq:x")], "filter", &["`city`"]);
    check_refused(&[("rollup", "daily")], "rollup", &["event_daily"]);
    check_refused(
        &[("measures", "sessions"), ("dimensions", "country"), ("from", "-7d")],
        "dimensions",
        &["`sessions_daily` has no dimension `country`"],
    );
}

#[test]
fn a_field_of_props_has_two_names() {
    let by = |name| [("rollup", "spent_daily"), ("measures", "value"), ("from", "-7d"), ("dimensions", name)];
    check(&by("plan"), &["spent_daily"]);
    check(&by("props.plan"), &["spent_daily"]);
}

fn second(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

#[test]
fn users_of_whole_days_come_from_days_and_those_at_the_edges_from_hours() {
    let users = |from, to| [("measures", "users"), ("from", from), ("to", to)];
    let given = users("2026-11-20T22:00:00Z", "2026-11-27T03:00:00Z");
    check(&given, &["users_all_daily", "users_hourly"]);
    let (first, last) = (second("2026-11-20T00:00:00Z"), second("2026-11-27T00:00:00Z"));
    let plan = planned(&given).unwrap();
    assert_eq!(plan.parts[0].sources[0].span, Span::Without(vec![first, last]));
    assert_eq!(plan.parts[0].sources[1].span, Span::Within(vec![(first, first + DAY), (last, last + DAY)]));
    // A filter on the event needs a rollup with the dimension `event`.
    let filtered = [&given[..], &[("filter", "event:eq:a")]].concat();
    check(&filtered, &["users_daily", "users_hourly"]);
    // Only the hourly rollup is read if no whole day lies between the bounds. Only the daily rollup is read if the
    // window consists of whole days.
    check(&users("2026-11-20T22:00:00Z", "2026-11-21T22:00:00Z"), &["users_hourly"]);
    check(&users("2026-11-20T00:00:00Z", "2026-11-27T00:00:00Z"), &["users_all_daily"]);
    // Months of another time zone are also read from the daily rollup, whose days are UTC days. Only the UTC days in
    // which a month begins or ends are read from the hourly rollup.
    let months = [("measures", "users"), ("grain", "month"), ("from", "-3mo"), ("tz", "Europe/Berlin")];
    check(&months, &["users_all_daily", "users_hourly"]);
    check(
        &[("measures", "users"), ("grain", "day"), ("from", "-3d"), ("tz", "Europe/Berlin")],
        &["users_hourly"],
    );
}

#[test]
fn a_rollup_that_has_every_event_of_the_window_comes_first() {
    let since =
        |name: &str, text| Reach { since: [(name.to_owned(), second(text))].into(), ..Reach::default() };
    let late = since("event_daily", "2026-11-25T00:00:00Z");
    check_with(&[("from", "-7d")], &late, &["event_hourly"]);
    check_with(&[("from", "-3d")], &late, &["event_daily"]);
    let given = [("from", "-7d"), ("rollup", "event_daily")];
    let plan = planned_with(&given, &late).unwrap();
    assert_eq!(plan.parts[0].complete_from, Some(second("2026-11-25T00:00:00Z")));
    // The hourly rollup has every event only since 2026-11-26, which is within the window. But it is read only from
    // 2026-11-27 on, so no event is missing.
    let users = [("measures", "users"), ("from", "2026-11-20T00:00:00Z"), ("to", "2026-11-27T03:00:00Z")];
    let late = since("users_hourly", "2026-11-26T00:00:00Z");
    check_with(&users, &late, &["users_all_daily", "users_hourly"]);
    assert_eq!(planned_with(&users, &late).unwrap().parts[0].complete_from, None);
    let late = since("users_hourly", "2026-11-27T01:00:00Z");
    assert_eq!(
        planned_with(&users, &late).unwrap().parts[0].complete_from,
        Some(second("2026-11-27T01:00:00Z"))
    );
}

#[test]
fn a_rollup_that_the_aggregator_declares_differently_is_not_used() {
    let renamed =
        Rollups::built_in().to_string().replace("name = \"event_daily\"", "name = \"event_by_day\"");
    let reach = Reach { aggregator_rollups: Some(Rollups::parse("", &renamed).unwrap()), ..Reach::default() };
    check_with(&[("from", "-7d")], &reach, &["event_hourly"]);
    let named = planned_with(&[("from", "-7d"), ("rollup", "event_daily")], &reach).unwrap_err();
    assert_eq!((named.kind, &*named.errors[0].param), (Kind::NotCovered, "rollup"));
    let shown = [("measures", "shown"), ("from", "-7d"), ("filter", "event:eq:view")];
    let refused = planned_with(&shown, &reach).unwrap_err();
    assert!(
        refused
            .detail()
            .contains("the aggregator declares them differently or not at all: event_daily, views_daily"),
        "{}",
        refused.detail()
    );
}

#[test]
fn a_refusal_does_not_name_measures_that_the_key_does_not_permit() {
    let board = Reader { measures: Some(["value".to_owned()].into()), ..Reader::default() };
    let refusal = |reader: &Reader| {
        let given = [("measures", "value"), ("rollup", "event_daily")];
        planned_for(reader, &given, &Reach::default()).unwrap_err().detail()
    };
    assert!(refusal(&Reader::default()).ends_with("can be read are events"));
    assert!(refusal(&board).ends_with("can be read are none"));
}
