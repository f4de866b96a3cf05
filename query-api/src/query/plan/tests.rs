use jiff::Timestamp;

use super::*;

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
    let pairs: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let query = Query::parse(&pairs).unwrap();
    let window = Window::new((query.from, query.to), query.grain, query.calendar.clone(), now()).unwrap();
    let rollups = Rollups::parse("", &format!("{}{MORE}", Rollups::built_in())).unwrap();
    plan(&rollups, &query, &window, now())
}

#[track_caller]
fn check(given: &[(&str, &str)], rollups: &[&str]) {
    let plan = planned(given).unwrap();
    let names: Vec<_> = plan.parts.iter().map(|part| part.rollup.name.as_str()).collect();
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
fn each_measure_has_its_rollup() {
    check(
        &[("from", "-7d"), ("measures", "users,events,value"), ("rollup", "event_hourly,users_daily")],
        &["users_daily", "event_hourly"],
    );
}

#[test]
fn a_day_of_another_zone_is_made_of_hours() {
    check(&[("from", "-7d"), ("grain", "day"), ("tz", "Asia/Singapore")], &["event_hourly"]);
    check(&[("from", "-7d"), ("grain", "day"), ("tz", "Asia/Kathmandu")], &["event_minutely"]);
}

#[test]
fn the_grain_that_is_needed_is_named() {
    let hours = [("measures", "users"), ("grain", "hour"), ("tz", "Asia/Tehran")];
    check_refused(&hours, "grain", &["`users_hourly` has buckets of grain hour", "needs 15m"]);
    check_refused(
        &[("measures", "votes"), ("filter", "event:eq:vote")],
        "grain",
        &["one bucket for all time"],
    );
}

#[test]
fn a_rollup_that_reaches_back_far_enough_comes_first() {
    // Both cover hours; minutes are kept for a week.
    check(
        &[("rollup", "event_minutely,event_hourly"), ("grain", "hour"), ("from", "-2d")],
        &["event_hourly"],
    );
    check(&[("rollup", "event_minutely"), ("grain", "hour"), ("from", "-30d")], &["event_minutely"]);
    let plan = planned(&[("rollup", "event_minutely"), ("grain", "hour"), ("from", "-30d")]).unwrap();
    let kept = "2026-11-21T00:00:00Z".parse::<Timestamp>().unwrap().as_second();
    assert_eq!(plan.parts[0].kept_from, Some(kept));
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
fn a_filter_that_the_where_does_not_meet_needs_a_dimension() {
    // The rollup holds plays too and cannot tell them from views.
    let plan = planned(&[("measures", "shown"), ("from", "-7d"), ("filter", "event:in:play|view")]).unwrap();
    assert_eq!(plan.parts[0].filtered, [None]);
    check_refused(&[("measures", "shown"), ("from", "-7d"), ("filter", "event:eq:view")], "filter", &[]);
}

#[test]
fn a_name_with_two_definitions_needs_the_rollup() {
    let value = [("measures", "value"), ("from", "-7d")];
    check_refused(&value, "rollup", &["sum(param_int) in `event_hourly`", "sum(sequence) in `spent_daily`"]);
    check(&[value[0], value[1], ("rollup", "spent_daily")], &["spent_daily"]);
}

#[test]
fn what_is_missing_and_what_exists_is_said() {
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
