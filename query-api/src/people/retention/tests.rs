use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use schemas::rollup::Rollups;
use schemas::time::UnixMillis;
use serde_json::json;

use super::cohorts::Cohorts;
use super::params::Retention;
use super::*;
use crate::people::lane::{self, Counted, CountedRow};
use crate::people::render::Table as _;
use crate::query::sql::{Parameter, Statement};

/// 2026-11-28 14:20:30 UTC, a Saturday.
const NOW: i64 = 1_795_875_630;

fn request(given: &[(&str, &str)]) -> Retention {
    let pairs: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Retention::parse(&pairs).unwrap()
}

fn statement(given: &[(&str, &str)]) -> Statement {
    let request = request(given);
    let periods = Periods::new(&request, NOW).unwrap();
    let reader = Reader::default();
    let filters = [("first", request.first()), ("again", request.again())];
    let needs = Needs {
        counts: Counts::Users,
        reader: &reader,
        filters: &filters,
        edges: &periods.edges,
        zone: "UTC",
    };
    let source = Source::choose(&Rollups::built_in(), &Reach::default(), needs, NOW).unwrap();
    let (select, parameters) = sql::select(&request, &periods, &source, "default");
    lane::statement(select, parameters, Duration::from_secs(10), 1_000)
}

#[test]
fn the_statement_reads_states_as_lists_of_users() {
    let Statement { text, parameters, settings } = statement(&[
        ("first", "event:eq:signup"),
        ("again", "event:in:open|view"),
        ("filter", "event:ne:x"),
        ("grain", "week"),
        ("periods", "3"),
        ("from", "-2w"),
    ]);
    let mut found = format!("{text}\n");
    for (name, value) in parameters {
        found += &format!("-- {name} = {value:?}\n");
    }
    for (name, value) in settings {
        found += &format!("-- SETTING {name} = {value}\n");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/people/retention/retention.sql");
    if !fs::read_to_string(&file).is_ok_and(|there| there == found) {
        fs::write(&file, found).unwrap();
        panic!("{} was stale and has been rewritten; review the diff and commit it", file.display());
    }
}

/// Size and cells of two cohorts with three users each, at `as_of`, from a rollup that has every event from
/// `complete_from` on.
fn cells(as_of: Option<i64>, complete_from: Option<i64>) -> serde_json::Value {
    let request =
        request(&[("first", "event:eq:a"), ("again", "event:eq:b"), ("periods", "2"), ("from", "-2d")]);
    let periods = Periods::new(&request, NOW).unwrap();
    let reach = Reach { as_of: as_of.map(|as_of| UnixMillis(as_of * 1000)), ..Reach::default() };
    let rows = vec![
        CountedRow { start: 1, figures: vec![3, 2, 0, 0] },
        CountedRow { start: 0, figures: vec![3, 3, 1, 0] },
    ];
    let counted = Counted { reach: Arc::new(reach), rows };
    let cohorts = Cohorts::new(&request, &periods, complete_from, &counted, NOW);
    let rows: serde_json::Value = serde_json::from_str(cohorts.json().get()).unwrap();
    assert_eq!(rows[0]["cohort"], "2026-11-27T00:00:00+00:00");
    json!([[rows[0]["size"], rows[0]["cells"]], [rows[1]["size"], rows[1]["cells"]]])
}

#[test]
fn a_cell_is_null_until_its_period_is_finished() {
    let today = NOW - NOW.rem_euclid(86_400);
    assert_eq!(cells(Some(NOW), None), json!([[3, [3, null, null]], [3, [null, null, null]]]));
    assert_eq!(cells(Some(today), None), json!([[3, [3, null, null]], [3, [null, null, null]]]));
    assert_eq!(cells(Some(today - 1), None), json!([[3, [null, null, null]], [3, [null, null, null]]]));
    let tomorrow = today + 86_400;
    assert_eq!(cells(Some(tomorrow), None), json!([[3, [3, 1, null]], [3, [2, null, null]]]));
    assert_eq!(cells(None, None), json!([[3, [null, null, null]], [3, [null, null, null]]]));
}

#[test]
fn a_cohort_older_than_the_retention_has_only_nulls() {
    let today = NOW - NOW.rem_euclid(86_400);
    assert_eq!(
        cells(Some(today + 86_400), Some(today)),
        json!([[null, [null, null, null]], [3, [2, null, null]]])
    );
}

#[test]
fn csv_has_a_column_for_each_period() {
    let request =
        request(&[("first", "event:eq:a"), ("again", "event:eq:b"), ("periods", "1"), ("from", "-1d")]);
    let periods = Periods::new(&request, NOW).unwrap();
    let counted = Counted { reach: Arc::default(), rows: Vec::new() };
    let rows = Cohorts::new(&request, &periods, None, &counted, NOW).csv();
    assert_eq!(rows[0], ["cohort", "size", "period_0", "period_1"]);
    assert_eq!(rows[1], ["2026-11-28T00:00:00+00:00", "0", "", ""]);
}

proptest! {
    /// All texts of a request are bound as parameters, so the statement does not depend on them.
    #[test]
    fn texts_of_a_request_are_never_part_of_the_statement(values in prop::collection::vec("(?s).{0,20}", 3)) {
        let with = |values: &[String]| {
            let (first, again) = (format!("event:eq:{}", values[0]), format!("event:prefix:{}", values[1]));
            let filter = format!("event:contains:{}", values[2]);
            statement(&[("first", &*first), ("again", &*again), ("filter", &*filter)])
        };
        let (found, expected) = (with(&values), with(&["a", "b", "c"].map(str::to_owned)));
        prop_assert_eq!(found.text, expected.text);
        prop_assert_eq!(&found.parameters[2].1, &Parameter::Texts(vec![values[0].clone()]));
    }
}
