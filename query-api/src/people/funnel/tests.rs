use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use schemas::rollup::Rollups;
use serde_json::json;

use super::params::Funnel;
use super::*;
use crate::people::lane::{self, CountedRow};
use crate::people::render::Table as _;
use crate::query::sql::{Parameter, Statement};
use crate::reach::Reach;

/// 2026-11-28 14:20:30 UTC.
const NOW: i64 = 1_795_875_630;

fn request(steps: &[&str], more: &[(&str, &str)]) -> Funnel {
    let steps = steps.iter().map(|step| ("steps", *step)).chain(more.iter().copied());
    let pairs: Vec<_> = steps.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Funnel::parse(&pairs).unwrap()
}

/// The statements that count events and users.
fn statements(request: &Funnel) -> [Statement; 2] {
    let window = window(request, NOW).unwrap();
    let events = request.all_events();
    let (reader, filters) = (Reader::default(), [("steps", &events)]);
    let hours = [window.from().div_euclid(HOUR) * HOUR, (window.to() + HOUR - 1).div_euclid(HOUR) * HOUR];
    let needs =
        Needs { counts: Counts::Events, reader: &reader, filters: &filters, edges: &hours, zone: "UTC" };
    let source = Source::choose(&Rollups::built_in(), &Reach::default(), needs, NOW).unwrap();
    let size = sql::size(&source, &events, hours, "default");
    let select = sql::select(request, &events, &window, "default").unwrap();
    [size, select]
        .map(|(select, parameters)| lane::statement(select, parameters, Duration::from_secs(10), 1_000))
}

#[test]
fn the_statements_count_events_first_and_then_users() {
    let request = request(
        &["event:eq:view", "event:in:signup|login", "event:eq:buy"],
        &[("within", "2h"), ("from", "2026-11-27T10:30:00Z"), ("filter", "country:eq:DE")],
    );
    let mut found = String::new();
    for Statement { text, parameters, .. } in statements(&request) {
        found += &format!("{text}\n");
        for (name, value) in parameters {
            found += &format!("-- {name} = {value:?}\n");
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/people/funnel/funnel.sql");
    if !fs::read_to_string(&file).is_ok_and(|there| there == found) {
        fs::write(&file, found).unwrap();
        panic!("{} was stale and has been rewritten; review the diff and commit it", file.display());
    }
}

#[test]
fn shares_are_of_the_first_and_of_the_previous_step() {
    let request = request(&["event:eq:a", "event:eq:b", "event:eq:c"], &[]);
    let rows = |figures: Option<Vec<u64>>| {
        let rows = figures.map(|figures| CountedRow { start: 0, figures }).into_iter().collect();
        let steps = Steps::new(&request, &Counted { reach: Arc::default(), rows });
        serde_json::from_str::<serde_json::Value>(steps.json().get()).unwrap()
    };
    assert_eq!(
        rows(Some(vec![8, 4, 1])),
        json!([
            {"step": "event:eq:a", "users": 8, "of_first": 1.0, "of_previous": null},
            {"step": "event:eq:b", "users": 4, "of_first": 0.5, "of_previous": 0.5},
            {"step": "event:eq:c", "users": 1, "of_first": 0.125, "of_previous": 0.25},
        ])
    );
    // If no user has an event of the steps, the result is a row with an empty array, or it has no row.
    let none = json!({"step": "event:eq:c", "users": 0, "of_first": null, "of_previous": null});
    assert_eq!((&rows(Some(Vec::new()))[2], &rows(None)[2]), (&none, &none));
}

#[test]
fn a_funnel_over_too_many_events_is_refused() {
    assert_eq!(check_size(10, 10), Ok(()));
    assert_eq!(check_size(11, 10).unwrap_err().kind, Kind::TooWide);
}

#[test]
fn a_window_outside_the_days_for_which_events_are_kept_is_refused() {
    let steps = ["event:eq:a", "event:eq:b"];
    let refused = |from: &str, to: &str| {
        window(&request(&steps, &[("from", from), ("to", to)]), NOW).err().map(|problem| problem.kind)
    };
    assert_eq!(refused("-31d", "now"), None);
    assert_eq!(refused("-32d", "-1d"), None);
    assert_eq!(refused("-32d", "now"), Some(Kind::TooWide));
    assert_eq!(refused("-33d", "-3d"), Some(Kind::NotCovered));
}

proptest! {
    /// All texts of a request are bound as parameters, so the statements do not depend on them.
    #[test]
    fn texts_of_a_request_are_never_part_of_the_statements(values in prop::collection::vec("(?s).{0,20}", 3)) {
        prop_assume!(values[0] != values[1]);
        let with = |values: &[String]| {
            let steps = [format!("event:eq:{}", values[0]), format!("event:eq:{}", values[1])];
            let filter = format!("param_str:contains:{}", values[2]);
            statements(&request(&[&*steps[0], &*steps[1]], &[("filter", &*filter)]))
        };
        let (found, expected) = (with(&values), with(&["a", "b", "c"].map(str::to_owned)));
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert_eq!(&found.text, &expected.text);
        }
        let bound: Vec<_> = found[1].parameters.iter().map(|(_, value)| value).collect();
        prop_assert!(bound.contains(&&Parameter::Texts(vec![values[2].clone()])));
    }
}
