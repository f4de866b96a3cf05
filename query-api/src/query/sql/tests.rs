use std::fs;
use std::path::Path;

use jiff::Timestamp;
use proptest::prelude::*;
use schemas::rollup::Rollups;

use super::super::cursor::Cursor;
use super::super::plan::Planner;
use super::*;
use crate::access::Reader;
use crate::reach::Reach;

fn of(rollups: &Rollups, given: &[(&str, &str)]) -> Statement {
    let pairs: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let query = Query::parse(&pairs).unwrap();
    let now = "2026-11-28T14:20:30Z".parse::<Timestamp>().unwrap().as_second();
    let window = Window::new((query.from, query.to), query.grain, query.calendar.clone(), now).unwrap();
    let (reach, reader) = (Reach::default(), Reader::default());
    let planner = Planner::new(rollups, &reach, &query, &reader, now).unwrap();
    let slices = Slices::new(&query, &planner, &window, now).unwrap();
    let limits = Limits { seconds: 10, rows_to_read: 200_000_000 };
    statement(&query, &slices, "default", limits)
}

const MORE: &str = r#"
[[rollup]]
name = "spent"
grain = "day"
dimensions = ["props.plan"]
where = { event = "purchase" }
measures = { n = "count", total = "sum(param_int)", least = "min(param_int)", most = "max(param_int)", buyers = "uniq_exact(user)" }
"#;

/// Compares the statement for the parameters `given` with the golden file `name`. If they differ, or if there is no
/// such file, writes the file and fails.
#[track_caller]
fn check(name: &str, given: &[(&str, &str)]) {
    let rollups = Rollups::parse("", &format!("{}{MORE}", Rollups::built_in())).unwrap();
    let Statement { text, parameters, settings } = of(&rollups, given);
    let mut found = format!("{text}\n");
    for (name, value) in parameters {
        found += &format!("-- {name} = {value:?}\n");
    }
    for (name, value) in settings {
        found += &format!("-- SETTING {name} = {value}\n");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/query/sql/golden/{name}.sql"));
    if fs::read_to_string(&file).is_ok_and(|there| there == found) {
        return;
    }
    fs::write(&file, found).unwrap();
    panic!("{} was stale or missing; the test has written it, review and commit it", file.display());
}

#[test]
fn one_number() {
    check("one_number", &[]);
}

#[test]
fn buckets_of_equal_length() {
    check("even_buckets", &[("grain", "hour"), ("from", "-3h"), ("measures", "events,value")]);
}

#[test]
fn buckets_of_different_length() {
    check("uneven_buckets", &[("grain", "month"), ("from", "-3mo"), ("measures", "users")]);
}

#[test]
fn several_rollups_and_dimensions() {
    let given = [("grain", "day"), ("from", "-2d"), ("measures", "events,users"), ("dimensions", "event")];
    check("two_rollups", &given);
}

#[test]
fn every_kind_of_measure() {
    let given = [
        ("from", "-2d"),
        ("measures", "n,total,least,most,buyers"),
        ("dimensions", "plan"),
        ("filter", "event:eq:purchase"),
    ];
    check("every_measure", &given);
}

#[test]
fn every_kind_of_filter() {
    let given = [
        ("from", "-2d"),
        ("filter", "event:in:a|b"),
        ("filter", "event:nin:c"),
        ("filter", "country:prefix:D"),
        ("filter", "country:contains:E"),
        ("filter", "country:ne:"),
        ("filter", "event:eq:a"),
    ];
    check("every_filter", &given);
}

#[test]
fn the_top_values_and_all_others() {
    let given = [
        ("grain", "day"),
        ("from", "-2d"),
        ("measures", "events,users"),
        ("dimensions", "event"),
        ("filter", "event:ne:x"),
        ("top", "3"),
    ];
    check("top", &given);
}

#[test]
fn a_comparison_and_the_equally_long_part_of_an_unfinished_bucket() {
    let given =
        [("grain", "hour"), ("from", "-2h"), ("compare", "previous"), ("dimensions", "event"), ("top", "3")];
    check("compared", &given);
}

#[test]
fn distinct_values_of_days_and_of_the_hours_at_the_edges() {
    check("days_and_edges", &[("from", "-3d"), ("measures", "users"), ("tz", "Europe/Berlin")]);
}

#[test]
fn distinct_values_of_a_sample() {
    let given = [("from", "-2d"), ("measures", "users"), ("dimensions", "event")];
    check("sampled", &[&given[..], &[("accuracy", "fast")]].concat());
    check("exact", &[&given[..], &[("accuracy", "exact")]].concat());
}

#[test]
fn rows_beyond_the_limit_are_left_out_by_the_database() {
    let given = [("dimensions", "event,country"), ("from", "-7d"), ("limit", "5")];
    check("limited", &given);
    let given = [
        ("dimensions", "event"),
        ("grain", "day"),
        ("from", "-7d"),
        ("fill", "none"),
        ("order", "event:desc"),
    ];
    check("limited_by_dimension", &given);
}

#[test]
fn rows_of_earlier_pages_are_left_out_by_the_database() {
    let cursor =
        |figure| Cursor { figure, start: 1_795_737_600, keys: vec![Some("a'".to_owned())] }.to_string();
    let given =
        [("dimensions", "event"), ("grain", "day"), ("from", "-7d"), ("fill", "none"), ("limit", "5")];
    let check = |name, order, figure| {
        check(name, &[&given[..], &[("order", order), ("cursor", &cursor(figure))]].concat());
    };
    check("page_by_time", "time:desc", None);
    check("page_by_measure", "events:asc", Some(7));
    check("page_of_nulls", "events:desc", None);
}

proptest! {
    /// The values of filters are bound as parameters, so the text of the statement does not depend on them.
    #[test]
    fn texts_of_a_request_are_never_part_of_the_statement(values in prop::collection::vec("(?s).{0,20}", 6)) {
        let rollups = Rollups::built_in();
        let fields = ["event:eq:", "event:ne:", "event:in:", "country:nin:", "country:prefix:", "country:contains:"];
        let with = |values: &[String]| {
            let filters: Vec<_> =
                fields.iter().zip(values).map(|(field, value)| format!("{field}{value}")).collect();
            let given: Vec<_> = filters.iter().map(|filter| ("filter", filter.as_str())).collect();
            of(&rollups, &[&given[..], &[("dimensions", "event"), ("top", "2"), ("from", "-2d")]].concat())
        };
        let harmless = vec!["a".to_owned(); 6];
        let (found, expected) = (with(&values), with(&harmless));
        prop_assert_eq!(found.text, expected.text);
        prop_assert_eq!(found.settings, expected.settings);
        prop_assert_eq!(&found.parameters[1].1, &Parameter::Texts(vec![values[0].clone()]));
    }

    /// A name that contains a quote, a backslash or another character that could change the SQL is refused before a
    /// statement is made, in each parameter that takes a name.
    #[test]
    fn names_that_are_not_declared_never_reach_a_statement(
        name in "(?s)[^,:]{0,20}['`\";)\\\\ ][^,:]{0,20}",
        param in prop::sample::select(vec!["measures", "dimensions", "rollup", "filter", "top", "order", "tz"]),
    ) {
        let value = match param {
            "filter" => format!("{name}:eq:a"),
            "top" => format!("{name}:5"),
            "order" => format!("{name}:asc"),
            _ => name,
        };
        let refused = Query::parse(&[(param.to_owned(), value)]).and_then(|query| {
            let window = Window::new((query.from, query.to), query.grain, query.calendar.clone(), 1_800_000_000)?;
            let (rollups, reach) = (Rollups::built_in(), Reach::default());
            Planner::new(&rollups, &reach, &query, &Reader::default(), 1_800_000_000)?.plan(&window)
        });
        prop_assert!(refused.is_err());
    }
}
