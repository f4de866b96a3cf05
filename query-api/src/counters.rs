//! The country counters of one tick, rendered.
//!
//! Sums of the last seven UTC days for the five countries that counted most of all time.
//! The age of an answer stands in its headers: in the body it would change the ETag with
//! every request.

use std::fmt::Write as _;
use std::ops::Range;

use schemas::event::COUNTED;
use schemas::time::{DAY, UnixMillis};
use serde_json::{Map, Value, json};

use crate::snapshot::Rendered;

/// Days that count: today and those before it.
const DAYS: i64 = 7;

/// The days that count at the moment `now`, in UTC.
pub fn counted_days(now: UnixMillis) -> Range<UnixMillis> {
    let today = now.floor(DAY).0;
    UnixMillis(today - (DAYS - 1) * DAY)..UnixMillis(today + DAY)
}

/// One of the top countries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Country {
    /// Its code.
    pub code: String,
    /// Sums over the days that count, in the order of [`COUNTED`].
    pub counts: [u64; COUNTED.len()],
    /// Sum over all events and all time.
    pub total: u64,
}

/// The answer, in both formats.
#[derive(Debug)]
pub struct Counters {
    /// `{"data":[…],"meta":{…}}`.
    pub json: Rendered,
    /// `country,view,play,click` and a row a country; RFC 4180.
    pub csv: Rendered,
}

impl Counters {
    /// Renders what a statement told; countries are ranked here, ties by their code.
    pub fn new(mut countries: Vec<Country>, days: Range<UnixMillis>, as_of: Option<UnixMillis>) -> Self {
        countries.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.code.cmp(&b.code)));
        Self { json: json(&countries, days, as_of), csv: csv(&countries) }
    }
}

fn json(countries: &[Country], days: Range<UnixMillis>, as_of: Option<UnixMillis>) -> Rendered {
    let row = |Country { code, counts, .. }: &Country| {
        let counts = COUNTED.iter().zip(counts).map(|(event, count)| ((*event).to_owned(), json!(count)));
        Value::Object(
            std::iter::once(("country".to_owned(), json!(code))).chain(counts).collect::<Map<_, _>>(),
        )
    };
    let data: Vec<_> = countries.iter().map(row).collect();
    let rfc3339 = |time: UnixMillis| format!("{time}Z").replacen(' ', "T", 1);
    let body = json!({
        "data": data,
        "meta": {
            "as_of": as_of.map(rfc3339),
            "exact": true,
            "window": {"from": rfc3339(days.start), "to": rfc3339(days.end), "tz": "UTC"},
            "rows": countries.len(),
        },
    });
    Rendered::new("application/json", body.to_string())
}

fn csv(countries: &[Country]) -> Rendered {
    let mut body = format!("country,{}\r\n", COUNTED.join(","));
    for Country { code, counts: [view, play, click], .. } in countries {
        // Writing to a String cannot fail; codes are letters.
        let _ = write!(body, "{code},{view},{play},{click}\r\n");
    }
    Rendered::new("text/csv; charset=utf-8; header=present", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn country(code: &str, counts: [u64; 3], total: u64) -> Country {
        Country { code: code.to_owned(), counts, total }
    }

    #[test]
    fn countries_stand_by_their_total_and_then_by_their_code() {
        let rows = vec![country("US", [1, 0, 0], 5), country("DE", [2, 3, 4], 5), country("RU", [0; 3], 9)];
        let now = UnixMillis::parse("2026-11-21 04:05:06").unwrap();
        let counters = Counters::new(rows, counted_days(now), Some(now));
        let csv = "country,view,play,click\r\nRU,0,0,0\r\nDE,2,3,4\r\nUS,1,0,0\r\n";
        assert_eq!(counters.csv.body, csv);
        let json: Value = serde_json::from_slice(&counters.json.body).unwrap();
        assert_eq!(json["data"][1], json!({"country": "DE", "view": 2, "play": 3, "click": 4}));
        assert_eq!(json["meta"]["as_of"], "2026-11-21T04:05:06.000Z");
        assert_eq!(json["meta"]["window"]["from"], "2026-11-15T00:00:00.000Z");
        assert_eq!(json["meta"]["window"]["to"], "2026-11-22T00:00:00.000Z");
    }

    #[test]
    fn nothing_counted_is_an_empty_answer() {
        let counters = Counters::new(Vec::new(), counted_days(UnixMillis(0)), None);
        assert_eq!(counters.csv.body, "country,view,play,click\r\n");
        assert!(counters.json.body.starts_with(br#"{"data":[],"meta":{"as_of":null,"#));
    }
}
