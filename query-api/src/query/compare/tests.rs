use jiff::Timestamp;
use schemas::rollup::Rollups;

use super::*;
use crate::access::Reader;
use crate::reach::Reach;

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

/// The slices of a query with the parameters `given`, at the moment `now`.
fn slices(now: &str, given: &[(&str, &str)]) -> Result<Slices, Problem> {
    let pairs: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let query = Query::parse(&pairs).unwrap();
    let now = at(now);
    let window = Window::new((query.from, query.to), query.grain, query.calendar.clone(), now).unwrap();
    let (rollups, reach) = (Rollups::built_in(), Reach::default());
    Slices::new(&query, &Planner::new(&rollups, &reach, &query, &Reader::default(), now)?, &window, now)
}

const NOW: &str = "2026-11-28T14:20:30Z";

/// Checks the start and the end of the window that the query is compared with, by the local clock.
#[track_caller]
fn check(given: &[(&str, &str)], from: &str, to: &str) {
    let slices = slices(NOW, given).unwrap();
    let local = |at| slices.main.window.calendar.local(at);
    let (start, end) = slices.compared.as_ref().unwrap().window;
    assert_eq!((local(start).as_str(), local(end).as_str()), (from, to), "{given:?}");
}

#[test]
fn a_window_is_compared_with_the_one_before() {
    let days = |compare| [("grain", "day"), ("from", "-7d"), ("tz", "Europe/Berlin"), ("compare", compare)];
    check(&days("previous"), "2026-11-15T00:00:00+01:00", "2026-11-22T00:00:00+01:00");
    check(&days("week"), "2026-11-15T00:00:00+01:00", "2026-11-22T00:00:00+01:00");
    check(&days("year"), "2025-11-22T00:00:00+01:00", "2025-11-29T00:00:00+01:00");
    check(&days("2026-10-20..2026-10-27"), "2026-10-20T00:00:00+02:00", "2026-10-27T00:00:00+01:00");
    // The clock was put back on 2026-10-25, so these four days are an hour longer than the four days before them.
    let over = |compare| [&days(compare)[..], &[("to", "2026-10-28")]].concat();
    let over: Vec<_> = over("previous")
        .into_iter()
        .map(|(name, value)| if name == "from" { (name, "2026-10-24") } else { (name, value) })
        .collect();
    check(&over, "2026-10-20T00:00:00+02:00", "2026-10-24T00:00:00+02:00");
    let month = [("grain", "month"), ("from", "2026-11-01"), ("to", "2026-12-01"), ("compare", "previous")];
    check(&month, "2026-10-01T00:00:00+00:00", "2026-11-01T00:00:00+00:00");
    let hours = [("grain", "hour"), ("from", "-3h"), ("compare", "previous")];
    check(&hours, "2026-11-28T09:00:00+00:00", "2026-11-28T12:00:00+00:00");
    let weeks = [("grain", "week"), ("from", "-2w"), ("compare", "year")];
    check(&weeks, "2025-11-17T00:00:00+00:00", "2025-12-01T00:00:00+00:00");
    let one = [("from", "-7d"), ("compare", "previous")];
    check(&one, "2026-11-15T00:00:00+00:00", "2026-11-22T00:00:00+00:00");
    let leap = [("grain", "month"), ("from", "2024-02-01"), ("to", "2024-03-01"), ("compare", "year")];
    check(&leap, "2023-02-01T00:00:00+00:00", "2023-03-01T00:00:00+00:00");
}

#[test]
fn only_buckets_that_are_over_are_compared_as_a_whole() {
    let days = [("grain", "day"), ("from", "-3d"), ("to", "2026-12-02"), ("compare", "previous")];
    let compared = slices(NOW, &days).unwrap().compared.unwrap();
    assert_eq!(compared.whole.unwrap().window.buckets(), 2);
    let cut = compared.cut.unwrap();
    assert_eq!(cut.bucket, 2);
    assert_eq!(cut.now.window.to(), at("2026-11-28T14:20:00Z"));
    // The window lies in the future, so there is nothing to compare yet.
    let later = [("grain", "day"), ("from", "2026-12-01"), ("to", "2026-12-02"), ("compare", "previous")];
    let compared = slices(NOW, &later).unwrap().compared.unwrap();
    assert_eq!((compared.whole, compared.cut), (None, None));
}

#[test]
fn the_cut_is_where_the_rollups_of_all_measures_have_an_edge() {
    let cut = |given: &[(&str, &str)]| {
        let given = [given, &[("grain", "day"), ("from", "-1d"), ("compare", "previous")]].concat();
        slices(NOW, &given)
            .unwrap()
            .compared
            .unwrap()
            .cut
            .map(|cut| (cut.now.window.to(), cut.then.window.to()))
    };
    let ends = |now, then| Some((at(now), at(then)));
    assert_eq!(cut(&[]), ends("2026-11-28T14:20:00Z", "2026-11-27T14:20:00Z"));
    assert_eq!(cut(&[("dimensions", "country")]), ends("2026-11-28T14:00:00Z", "2026-11-27T14:00:00Z"));
    assert_eq!(cut(&[("measures", "events,users")]), ends("2026-11-28T14:00:00Z", "2026-11-27T14:00:00Z"));
    assert_eq!(cut(&[("measures", "sessions")]), None);
    // If the rollup of a measure has no smaller buckets, the other measures are still compared.
    let both = cut(&[("measures", "sessions,events"), ("rollup", "sessions_daily,event_hourly")]);
    assert_eq!(both, ends("2026-11-28T14:00:00Z", "2026-11-27T14:00:00Z"));
    // Buckets of a minute are kept for a week, so a comparison with the year before can only be cut at a full hour.
    let year = [("grain", "day"), ("from", "-1d"), ("compare", "year")];
    let cut = slices(NOW, &year).unwrap().compared.unwrap().cut.unwrap();
    assert_eq!(cut.then.window.to(), at("2025-11-28T14:00:00Z"));
}

#[test]
fn an_impossible_comparison_names_the_parameter_compare() {
    let problem = slices(NOW, &[("from", "-2d"), ("compare", "2026-11-02..2026-11-01")]).unwrap_err();
    assert_eq!(problem.errors[0].param, "compare");
    let problem =
        slices(NOW, &[("from", "1970-01-02"), ("to", "1970-01-03"), ("compare", "year")]).unwrap_err();
    assert_eq!(problem.errors[0].param, "compare");
}
