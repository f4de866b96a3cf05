//! The country counters of one tick, rendered.
//!
//! Sums of the last seven UTC days for the five countries that counted most of all time.

use std::fmt::Write as _;
use std::ops::Range;

use schemas::event::COUNTED;
use schemas::tables;
use schemas::time::{DAY, UnixMillis};
use serde::Serialize;

use crate::snapshot::{Aging, Rendered, rfc3339};

/// Days that count: today and those before it.
const DAYS: i64 = 7;

/// The days that count at the moment `now`, in UTC.
pub fn counted_days(now: UnixMillis) -> Range<UnixMillis> {
    let today = now.floor(DAY).0;
    UnixMillis(today - (DAYS - 1) * DAY)..UnixMillis(today + DAY)
}

/// One of the top countries: sums over the days that count, and over all time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Country {
    /// Its code.
    #[serde(rename = "country")]
    pub code: String,
    /// Views.
    pub view: u64,
    /// Plays.
    pub play: u64,
    /// Clicks.
    pub click: u64,
    /// All three of all time.
    #[serde(skip)]
    pub total: u64,
}

/// The answer in each of its forms.
#[derive(Debug)]
pub struct Counters {
    /// `{"data":[…],"meta":{…}}`.
    pub json: Aging,
    /// `country,view,play,click` and a row a country; RFC 4180.
    pub csv: Rendered,
}

impl Counters {
    /// Renders what a statement told; countries are ranked here, ties by their code.
    pub fn new(mut countries: Vec<Country>, days: Range<UnixMillis>, as_of: Option<UnixMillis>) -> Self {
        countries.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.code.cmp(&b.code)));
        let json = Aging::new(as_of, |stale| json(&countries, &days, as_of, stale));
        Self { json, csv: csv(&countries) }
    }

    /// The JSON form at the moment `now`, read each `interval` milliseconds; `differs` if the
    /// aggregator has other rollups by now.
    pub fn json(&self, now: UnixMillis, interval: i64, differs: bool) -> &Rendered {
        // The view that ranks is made every REFRESH, however often it is read.
        self.json.at(now, interval.max(tables::REFRESH.as_millis() as i64), differs)
    }
}

/// The fields in the order in which they are sent.
#[derive(Serialize)]
struct Answer<'a> {
    data: &'a [Country],
    meta: Meta,
}

#[derive(Serialize)]
struct Meta {
    as_of: Option<String>,
    stale: bool,
    exact: bool,
    window: Window,
    rows: usize,
}

#[derive(Serialize)]
struct Window {
    from: String,
    to: String,
    tz: &'static str,
}

fn json(countries: &[Country], days: &Range<UnixMillis>, as_of: Option<UnixMillis>, stale: bool) -> Rendered {
    let window = Window { from: rfc3339(days.start), to: rfc3339(days.end), tz: "UTC" };
    let meta = Meta { as_of: as_of.map(rfc3339), stale, exact: true, window, rows: countries.len() };
    let body = serde_json::to_string(&Answer { data: countries, meta });
    Rendered::new("application/json", body.expect("numbers and texts become JSON"))
}

fn csv(countries: &[Country]) -> Rendered {
    let mut body = format!("country,{}\r\n", COUNTED.join(","));
    for Country { code, view, play, click, .. } in countries {
        // Writing to a String cannot fail; codes are letters.
        let _ = write!(body, "{code},{view},{play},{click}\r\n");
    }
    Rendered::new("text/csv; charset=utf-8; header=present", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(countries: &[(&str, u64)], as_of: Option<&str>) -> Counters {
        let country = |(code, total): &(&str, u64)| Country {
            code: (*code).to_owned(),
            view: 1,
            play: 2,
            click: total - 3,
            total: *total,
        };
        let days = counted_days(UnixMillis::parse("2026-11-21 04:05:06").unwrap());
        let as_of = as_of.map(|text| UnixMillis::parse(text).unwrap());
        Counters::new(countries.iter().map(country).collect(), days, as_of)
    }

    #[track_caller]
    fn check_stale(as_of: Option<&str>, now: &str, differs: bool, stale: bool) {
        let counters = counters(&[("US", 5)], as_of);
        let json = counters.json(UnixMillis::parse(now).unwrap(), 6000, differs);
        let found: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(found["meta"]["stale"], stale);
    }

    #[test]
    fn countries_stand_by_their_total_and_then_by_their_code() {
        let counters = counters(&[("US", 5), ("DE", 5), ("RU", 9)], None);
        let csv = "country,view,play,click\r\nRU,1,2,6\r\nDE,1,2,2\r\nUS,1,2,2\r\n";
        assert_eq!(counters.csv.body, csv);
    }

    #[test]
    fn json_says_of_which_moment_and_days_it_is() {
        let counters = counters(&[("US", 5)], Some("2026-11-21 04:05:06"));
        let json = &counters.json(UnixMillis::parse("2026-11-21 04:05:06").unwrap(), 5000, false).body;
        assert_eq!(
            str::from_utf8(json).unwrap(),
            r#"{"data":[{"country":"US","view":1,"play":2,"click":2}],"meta":{"as_of":"2026-11-21T04:05:06.000Z","stale":false,"exact":true,"window":{"from":"2026-11-15T00:00:00.000Z","to":"2026-11-22T00:00:00.000Z","tz":"UTC"},"rows":1}}"#
        );
    }

    #[test]
    fn nothing_counted_is_an_empty_answer() {
        let counters = counters(&[], None);
        assert_eq!(counters.csv.body, "country,view,play,click\r\n");
        let json = &counters.json(UnixMillis(0), 5000, false).body;
        assert!(json.starts_with(br#"{"data":[],"meta":{"as_of":null,"#));
    }

    #[test]
    fn an_answer_is_stale_when_it_should_have_been_renewed_twice() {
        check_stale(Some("2026-11-21 04:05:00"), "2026-11-21 04:05:18", false, false);
        check_stale(Some("2026-11-21 04:05:00"), "2026-11-21 04:05:18.001", false, true);
        check_stale(None, "2026-11-21 04:05:00", false, true);
    }

    #[test]
    fn an_answer_of_other_rollups_than_the_aggregators_is_stale_at_once() {
        check_stale(Some("2026-11-21 04:05:00"), "2026-11-21 04:05:00", true, true);
    }
}
