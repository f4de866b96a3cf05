use jiff::Timestamp;
use schemas::rollup::Rollups;

use super::super::fetch::FetchedRow;
use super::super::plan::Planner;
use super::*;
use crate::access::Reader;
use crate::reach::Reach;

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

const MORE: &str = r#"
[[rollup]]
name = "spent"
grain = "hour"
dimensions = ["country"]
measures = { sales = "count", least = "min(param_int)" }
"#;

/// A query that is asked at [`now`], and the `as_of` of its answer.
struct Asked {
    query: Query,
    slices: Slices,
    as_of: Option<UnixMillis>,
}

fn now() -> i64 {
    at("2026-11-28T14:20:00Z")
}

fn asked(given: &[(&str, &str)]) -> Asked {
    asked_of(given, &Reach::default())
}

fn asked_of(given: &[(&str, &str)], reach: &Reach) -> Asked {
    let pairs: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let query = Query::parse(&pairs).unwrap();
    let window = Window::new((query.from, query.to), query.grain, query.calendar.clone(), now()).unwrap();
    let rollups = Rollups::parse("", &format!("{}{MORE}", Rollups::built_in())).unwrap();
    let reader = Reader::default();
    let planner = Planner::new(&rollups, reach, &query, &reader, now()).unwrap();
    let slices = Slices::new(&query, &planner, &window, now()).unwrap();
    Asked { query, slices, as_of: Some(UnixMillis(now() * 1000)) }
}

fn row(part: u8, start: &str, keys: &[Option<&str>], figures: &[Option<i128>]) -> FetchedRow {
    let keys = keys.iter().map(|key| key.map(str::to_owned)).collect();
    FetchedRow { part, start: at(start), keys, figures: figures.to_vec(), size: 0, total: 0 }
}

impl Asked {
    fn shape(&self, rows: &[FetchedRow]) -> Result<Shaped, Problem> {
        shape(&self.query, &self.slices, rows.to_vec(), self.as_of, now())
    }

    /// Compares the rows of the answer with `expected`. A row as text has the local time, the dimensions and the
    /// measures. If the query asks for a comparison, `then:change` of each measure follows.
    #[track_caller]
    fn check(&self, rows: &[FetchedRow], expected: &[&str]) {
        let shaped = self.shape(rows).unwrap();
        let line = |row: &Row| {
            let time = self.query.calendar.local_without_offset(row.start);
            let keys = row.keys.iter().map(|key| key.as_deref().unwrap_or("(others)").to_owned());
            let figures =
                row.figures.iter().map(|figure| figure.map_or("null".to_owned(), |n| n.to_string()));
            let compared = row.compared.iter().map(|compared| {
                let then = compared.then.map_or("null".to_owned(), |n| n.to_string());
                format!("{then}:{}", compared.change().map_or("null".to_owned(), |change| change.to_string()))
            });
            [time].into_iter().chain(keys).chain(figures).chain(compared).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shaped.rows.iter().map(line).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_bucket_without_events_between_others_is_zero() {
    let rows =
        [row(1, "2026-11-26T00:00:00Z", &[], &[Some(1)]), row(1, "2026-11-28T00:00:00Z", &[], &[Some(1)])];
    let days = |fill| asked(&[("grain", "day"), ("from", "-3d"), ("fill", fill)]);
    days("zero").check(&rows, &["2026-11-26 00:00:00 1", "2026-11-27 00:00:00 0", "2026-11-28 00:00:00 1"]);
    days("null")
        .check(&rows, &["2026-11-26 00:00:00 1", "2026-11-27 00:00:00 null", "2026-11-28 00:00:00 1"]);
    days("none").check(&rows, &["2026-11-26 00:00:00 1", "2026-11-28 00:00:00 1"]);
}

#[test]
fn a_singapore_day_has_the_events_of_the_evening_before_in_utc() {
    let given = [("grain", "day"), ("from", "2025-11-15"), ("to", "2025-11-17"), ("tz", "Asia/Singapore")];
    let rows = [row(1, "2025-11-15T16:00:00Z", &[], &[Some(1)])];
    asked(&given).check(&rows, &["2025-11-15 00:00:00 0", "2025-11-16 00:00:00 1"]);
}

#[test]
fn buckets_that_are_not_complete_are_omitted_if_asked() {
    let given = [("grain", "hour"), ("from", "-3h"), ("partial", "omit")];
    let mut hours = asked(&given);
    hours.check(&[], &["2026-11-28 12:00:00 0", "2026-11-28 13:00:00 0"]);
    assert_eq!(hours.shape(&[]).unwrap().complete_until, Some(at("2026-11-28T14:00:00Z")));
    // A bucket that is over is not complete before everything in it is counted.
    hours.as_of = Some(UnixMillis(at("2026-11-28T13:59:59Z") * 1000));
    hours.check(&[], &["2026-11-28 12:00:00 0"]);
    hours.as_of = None;
    hours.check(&[], &[]);
}

#[test]
fn buckets_are_filled_up_to_now() {
    let day = asked(&[("grain", "hour"), ("from", "2026-11-28T13:00:00Z"), ("to", "2026-11-29")]);
    day.check(&[], &["2026-11-28 13:00:00 0", "2026-11-28 14:00:00 0"]);
    // A client's clock may be ahead of the server's. So a bucket that has not begun can have events; its row is kept.
    let ahead = [row(1, "2026-11-28T16:00:00Z", &[], &[Some(2)])];
    day.check(&ahead, &["2026-11-28 13:00:00 0", "2026-11-28 14:00:00 0", "2026-11-28 16:00:00 2"]);
}

#[test]
fn each_key_has_a_row_in_each_bucket() {
    let given = [("grain", "day"), ("from", "-2d"), ("dimensions", "event"), ("measures", "events,users")];
    let rows = [
        row(1, "2026-11-27T00:00:00Z", &[Some("b")], &[Some(4)]),
        row(1, "2026-11-28T00:00:00Z", &[Some("a")], &[Some(5)]),
        row(2, "2026-11-27T00:00:00Z", &[Some("b")], &[Some(2)]),
    ];
    asked(&given).check(
        &rows,
        &[
            "2026-11-27 00:00:00 a 0 0",
            "2026-11-27 00:00:00 b 4 2",
            "2026-11-28 00:00:00 a 5 0",
            "2026-11-28 00:00:00 b 0 0",
        ],
    );
}

#[test]
fn the_minimum_of_no_values_is_null() {
    let given = [("grain", "hour"), ("from", "-2h"), ("measures", "sales,least")];
    let rows = [row(1, "2026-11-28T13:00:00Z", &[], &[Some(3), None])];
    asked(&given).check(&rows, &["2026-11-28 13:00:00 3 null", "2026-11-28 14:00:00 0 null"]);
}

#[test]
fn a_bucket_older_than_the_retention_is_null() {
    let given = [("rollup", "event_minutely"), ("grain", "day"), ("from", "-9d"), ("to", "-6d")];
    let rows =
        [row(1, "2026-11-20T00:00:00Z", &[], &[Some(3)]), row(1, "2026-11-21T00:00:00Z", &[], &[Some(4)])];
    let expected = ["2026-11-20 00:00:00 null", "2026-11-21 00:00:00 4", "2026-11-22 00:00:00 0"];
    asked(&given).check(&rows, &expected);
}

#[test]
fn without_a_grain_the_greatest_is_first_and_the_merged_row_is_last() {
    let given = [("from", "-2d"), ("dimensions", "event"), ("top", "2")];
    let rows = [
        row(1, "2026-11-27T00:00:00Z", &[None], &[Some(99)]),
        row(1, "2026-11-27T00:00:00Z", &[Some("b")], &[Some(4)]),
        row(1, "2026-11-27T00:00:00Z", &[Some("a")], &[Some(4)]),
    ];
    let of = |key, n| format!("2026-11-27 00:00:00 {key} {n}");
    let (a, b, others) = (of("a", 4), of("b", 4), of("(others)", 99));
    asked(&given).check(&rows, &[&a, &b, &others]);
}

#[test]
fn rows_are_ordered_as_asked() {
    let rows = [
        row(1, "2026-11-27T00:00:00Z", &[Some("b")], &[Some(1)]),
        row(1, "2026-11-28T00:00:00Z", &[Some("a")], &[Some(7)]),
        row(1, "2026-11-28T00:00:00Z", &[Some("ä")], &[Some(7)]),
    ];
    let ordered = |order, expected: &[&str]| {
        let given =
            [("grain", "day"), ("from", "-2d"), ("dimensions", "event"), ("fill", "none"), ("order", order)];
        asked(&given).check(&rows, expected);
    };
    let (b, a, last) = ("2026-11-27 00:00:00 b 1", "2026-11-28 00:00:00 a 7", "2026-11-28 00:00:00 ä 7");
    ordered("time:desc", &[a, last, b]);
    ordered("event:desc", &[last, b, a]);
    ordered("events:asc", &[b, a, last]);
}

#[test]
fn rows_beyond_the_limit_are_left_out_and_the_answer_says_so() {
    let given = |limit| [("grain", "hour"), ("from", "-3h"), ("limit", limit)];
    let truncated = |limit| {
        let shaped = asked(&given(limit)).shape(&[]).unwrap();
        (shaped.rows.len(), shaped.truncated)
    };
    assert_eq!((truncated("2"), truncated("3")), ((2, true), (3, false)));
}

#[test]
fn too_many_cells_are_refused_before_and_after_the_database_is_asked() {
    let given = [("grain", "hour"), ("from", "-200d"), ("dimensions", "event"), ("top", "21")];
    let few = asked(&given);
    assert_eq!(check_size(&few.query, &few.slices.main.window, now()).unwrap_err().kind, Kind::TooWide);
    let given = [("grain", "hour"), ("from", "-200d"), ("dimensions", "event")];
    let many = asked(&given);
    check_size(&many.query, &many.slices.main.window, now()).unwrap();
    let rows: Vec<_> =
        (0..21).map(|n| row(1, "2026-11-27T00:00:00Z", &[Some(&n.to_string())], &[Some(1)])).collect();
    assert_eq!(many.shape(&rows).unwrap_err().kind, Kind::TooWide);
    assert_eq!(many.shape(&rows[..20]).unwrap().rows.len(), many.query.limit);
}

#[test]
fn an_answer_names_its_rollups_and_its_window() {
    let shaped = asked(&[("measures", "events,users"), ("from", "-2d")]).shape(&[]).unwrap();
    assert_eq!(shaped.rollups, ["event_daily", "users_all_daily"]);
    assert_eq!(shaped.window, (at("2026-11-27T00:00:00Z"), at("2026-11-29T00:00:00Z")));
    assert_eq!(shaped.rows.len(), 1);
}

#[test]
fn pages_follow_each_other_without_a_gap() {
    let rows: Vec<_> = (0..7)
        .map(|n| row(1, "2026-11-27T00:00:00Z", &[Some(&format!("e{n}"))], &[Some(i128::from(n % 3))]))
        .collect();
    let others = row(1, "2026-11-27T00:00:00Z", &[None], &[Some(9)]);
    let rows = [rows, vec![others]].concat();
    let mut given = vec![("from", "-2d"), ("dimensions", "event"), ("top", "7")];
    let all = asked(&given).shape(&rows).unwrap();
    assert_eq!((all.rows.len(), all.truncated, &all.next), (8, false, &None));
    given.push(("limit", "3"));
    let (mut pages, mut next) = (Vec::new(), String::new());
    for size in [3, 3, 2] {
        let more = [("cursor", next.as_str())];
        let given = [given.as_slice(), if next.is_empty() { &[] } else { &more }].concat();
        let page = asked(&given).shape(&rows).unwrap();
        assert_eq!((page.rows.len(), page.truncated), (size, size == 3));
        pages.extend(page.rows);
        next = page.next.map(|cursor| cursor.to_string()).unwrap_or_default();
    }
    assert_eq!((pages, next.as_str()), (all.rows, ""));
}

#[test]
fn rows_that_clickhouse_limits_have_pages_however_many_there_are() {
    let given = [("from", "-2d"), ("dimensions", "event"), ("fill", "none"), ("limit", "1")];
    let fetched = |key| {
        let row = row(1, "2026-11-27T00:00:00Z", &[Some(key)], &[Some(1)]);
        FetchedRow { total: 2 * MAX_CELLS as u64, ..row }
    };
    let page = asked(&given).shape(&["a", "b"].map(fetched)).unwrap();
    assert_eq!((page.total, page.truncated), (2 * MAX_CELLS, true));
    let cursor = page.next.unwrap().to_string();
    let page = asked(&[&given[..], &[("cursor", &cursor)]].concat()).shape(&["b", "c"].map(fetched)).unwrap();
    assert_eq!(page.rows[0].keys, [Some("b".to_owned())]);
    assert!(page.next.is_some());
}

#[test]
fn an_unfinished_hour_is_compared_with_an_equally_long_part() {
    // There were 20 events from 14:00 to 14:20, and 20 events from 13:00 to 13:20. Events after 13:20 do not count.
    let hour = asked(&[("grain", "hour"), ("from", "-1h"), ("compare", "previous")]);
    let cut = hour.slices.compared.as_ref().unwrap().cut.as_ref().unwrap();
    let ends = |slice: &Slice| (slice.window.from(), slice.window.to());
    assert_eq!(ends(&cut.now), (at("2026-11-28T14:00:00Z"), at("2026-11-28T14:20:00Z")));
    assert_eq!(ends(&cut.then), (at("2026-11-28T13:00:00Z"), at("2026-11-28T13:20:00Z")));
    let rows = [
        row(1, "2026-11-28T14:00:00Z", &[], &[Some(20)]),
        row(2, "2026-11-28T14:00:00Z", &[], &[Some(20)]),
        row(3, "2026-11-28T13:00:00Z", &[], &[Some(20)]),
    ];
    hour.check(&rows, &["2026-11-28 14:00:00 20 20:0"]);
    let compared = hour.shape(&rows).unwrap().compared.unwrap();
    assert_eq!(compared.window, (at("2026-11-28T13:00:00Z"), at("2026-11-28T14:00:00Z")));
    assert_eq!(compared.cut, Some((at("2026-11-28T14:20:00Z"), at("2026-11-28T13:20:00Z"))));
}

#[test]
fn buckets_are_compared_by_their_number_and_the_unfinished_one_is_cut() {
    let days = asked(&[("grain", "day"), ("from", "-2d"), ("compare", "week"), ("measures", "events,users")]);
    let rows = [
        row(1, "2026-11-27T00:00:00Z", &[], &[Some(30)]),
        row(1, "2026-11-28T00:00:00Z", &[], &[Some(16)]),
        row(2, "2026-11-27T00:00:00Z", &[], &[Some(4)]),
        row(2, "2026-11-28T00:00:00Z", &[], &[Some(4)]),
        row(3, "2026-11-20T00:00:00Z", &[], &[Some(40)]),
        row(4, "2026-11-20T00:00:00Z", &[], &[Some(4)]),
        row(5, "2026-11-28T00:00:00Z", &[], &[Some(15)]),
        row(6, "2026-11-28T00:00:00Z", &[], &[Some(3)]),
        row(7, "2026-11-21T00:00:00Z", &[], &[Some(10)]),
    ];
    // The rollup of users has no shorter buckets than hours. So the comparison of both measures ends at 14:00, the last
    // full hour before `now`. A week before, there were no users by 14:00.
    let expected = ["2026-11-27 00:00:00 30 4 40:-0.25 4:0", "2026-11-28 00:00:00 16 4 10:0.5 0:null"];
    days.check(&rows, &expected);
    assert_eq!(
        days.shape(&rows).unwrap().compared.unwrap().cut,
        Some((at("2026-11-28T14:00:00Z"), at("2026-11-21T14:00:00Z")))
    );
}

#[test]
fn an_unfinished_bucket_that_no_rollup_divides_is_not_compared() {
    let given = [("grain", "hour"), ("from", "-2h"), ("compare", "previous"), ("measures", "events,users")];
    let hours = asked(&[&given[..], &[("rollup", "event_minutely,users_hourly")]].concat());
    let rows = [
        row(1, "2026-11-28T13:00:00Z", &[], &[Some(8)]),
        row(1, "2026-11-28T14:00:00Z", &[], &[Some(3)]),
        row(2, "2026-11-28T13:00:00Z", &[], &[Some(4)]),
        row(2, "2026-11-28T14:00:00Z", &[], &[Some(2)]),
        row(3, "2026-11-28T11:00:00Z", &[], &[Some(4)]),
        row(4, "2026-11-28T11:00:00Z", &[], &[Some(1)]),
        row(5, "2026-11-28T14:00:00Z", &[], &[Some(3)]),
        row(6, "2026-11-28T12:00:00Z", &[], &[Some(2)]),
    ];
    let expected = ["2026-11-28 13:00:00 8 4 4:1 1:3", "2026-11-28 14:00:00 3 2 2:0.5 null:null"];
    hours.check(&rows, &expected);
}

#[test]
fn a_key_that_only_the_other_window_has_is_compared_too() {
    let given = [
        ("from", "2026-11-26"),
        ("to", "2026-11-27"),
        ("dimensions", "event"),
        ("compare", "2026-11-01..2026-11-02"),
    ];
    let rows = [
        row(1, "2026-11-26T00:00:00Z", &[Some("a")], &[Some(4)]),
        row(2, "2026-11-01T00:00:00Z", &[Some("b")], &[Some(5)]),
    ];
    asked(&given).check(&rows, &["2026-11-26 00:00:00 a 4 0:null", "2026-11-26 00:00:00 b 0 5:-1"]);
}

#[test]
fn a_bucket_that_begins_before_every_event_was_counted_is_null() {
    let since = [("event_daily".to_owned(), at("2026-11-27T00:00:00.5Z") + 1)].into();
    let reach = Reach { since, ..Reach::default() };
    let given = [("grain", "day"), ("from", "-3d"), ("rollup", "event_daily")];
    let rows =
        [row(1, "2026-11-27T00:00:00Z", &[], &[Some(3)]), row(1, "2026-11-28T00:00:00Z", &[], &[Some(4)])];
    let days = asked_of(&given, &reach);
    let (null, known) = ("null", "2026-11-28 00:00:00 4");
    days.check(
        &rows,
        &[&format!("2026-11-26 00:00:00 {null}"), &format!("2026-11-27 00:00:00 {null}"), known],
    );
    assert!(!days.shape(&rows).unwrap().is_before_since);
    let before =
        [("from", "2026-11-20"), ("to", "2026-11-21"), ("dimensions", "event"), ("rollup", "event_daily")];
    assert!(asked_of(&before, &reach).shape(&[]).unwrap().is_before_since);
}

#[test]
fn each_page_states_the_number_of_all_rows() {
    let rows = ["a", "b", "c"].map(|key| row(1, "2026-11-27T00:00:00Z", &[Some(key)], &[Some(1)]));
    let joined = asked(&[("from", "-2d"), ("dimensions", "event"), ("top", "9"), ("limit", "2")])
        .shape(&rows)
        .unwrap();
    assert_eq!((joined.rows.len(), joined.total), (2, 3));
    // Without `top`, ClickHouse applies the limit itself, and reports the number of all rows in `total`.
    let limited = rows.map(|row| FetchedRow { total: 77, ..row });
    let page = asked(&[("from", "-2d"), ("dimensions", "event"), ("limit", "2")]).shape(&limited).unwrap();
    assert_eq!((page.rows.len(), page.total, page.truncated), (2, 77, true));
}

#[test]
fn a_next_page_is_offered_only_if_it_would_not_be_refused() {
    let given =
        [("from", "-2d"), ("dimensions", "event"), ("limit", "2"), ("compare", "previous"), ("fill", "none")];
    let row = |n: usize| row(1, "2026-11-27T00:00:00Z", &[Some(&n.to_string())], &[Some(1)]);
    let page = |rows| asked(&given).shape(&(0..rows).map(row).collect::<Vec<_>>()).unwrap();
    let (last, more) = (page(MAX_CELLS), page(MAX_CELLS + 1));
    assert!(last.truncated && last.next.is_some());
    assert!(more.truncated && more.next.is_none());
}

#[test]
fn measures_that_were_counted_from_a_sample_are_listed() {
    let of = |accuracy, size| {
        let given = [("from", "-2d"), ("measures", "events,users"), ("accuracy", accuracy)];
        let users = FetchedRow { size, ..row(2, "2026-11-27T00:00:00Z", &[], &[Some(3)]) };
        asked(&given).shape(&[row(1, "2026-11-27T00:00:00Z", &[], &[Some(3)]), users]).unwrap().sampled
    };
    assert_eq!((of("auto", MAX_EXACT_VALUES), of("auto", MAX_EXACT_VALUES + 1)), (vec![], vec![1]));
    assert_eq!((of("exact", 0), of("fast", 0)), (vec![], vec![1]));
}
