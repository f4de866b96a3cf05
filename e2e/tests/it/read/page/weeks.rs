//! Four weeks of events, and the answers to the questions on the page about these events, computed by plain counting.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use schemas::time::{DAY, HOUR, MINUTE, UnixMillis};
use serde_json::{Value, json};

use super::super::people::{funnel, users};
use crate::oracle::TestEvent;

/// The steps of the page's funnel. The number is the probability, in percent, that a visit with all earlier steps also
/// has this step.
const STEPS: [(&str, u8); 4] = [("visit", 100), ("view", 90), ("signup_start", 70), ("signup", 25)];
/// Countries, each with its visits per day on the 6 days before today and its visits per day on earlier days.
const COUNTRIES: [(&str, i64, i64); 3] = [("FR", 9, 8), ("JP", 12, 5), ("CA", 4, 6)];
/// How many days back the events reach.
const DAYS: i64 = 27;
/// The page compares the unfinished current day with an equally long part of the day this many days ago. This
/// module generates no events on these two days, so the results do not depend on the time of day of the test.
const COMPARED_DAYS_AGO: i64 = 7;
/// Number of people. Each of them visits many times.
const PEOPLE: u32 = 120;

/// The events of visits in the last weeks. The steps of a visit are one minute apart.
pub(super) fn events(now: UnixMillis) -> Vec<TestEvent> {
    let mut rng = Rng::with_seed(18);
    let today = now.floor(DAY).0;
    let mut events = Vec::new();
    for back in (1..=DAYS).filter(|back| *back != COMPARED_DAYS_AGO) {
        for (country, this_week, before) in COUNTRIES {
            for _ in 0..if back < COMPARED_DAYS_AGO { this_week } else { before } {
                let start = today - back * DAY + rng.i64(0..DAY - HOUR);
                visit(&mut rng, &mut events, start, country);
            }
        }
    }
    events
}

fn visit(rng: &mut Rng, events: &mut Vec<TestEvent>, start: i64, country: &str) {
    let user = format!("person-{}", rng.u32(..PEOPLE));
    for (at, (step, share)) in (0_i64..).zip(STEPS) {
        if rng.u8(..100) >= share {
            return;
        }
        events.push(TestEvent {
            time: UnixMillis(start + at * MINUTE),
            event: step.to_owned(),
            user: user.clone(),
            country: country.to_owned(),
            device_os: "ios".to_owned(),
            value: 1,
        });
    }
}

/// The answers that the page must show to its questions about these events.
pub(super) fn answers(events: &[TestEvent], now: UnixMillis) -> Value {
    let today = now.floor(DAY).0;
    json!({
        "growth": growth(events, today),
        "users": {"yesterday": users_of(events, today - DAY), "before": users_of(events, today - 2 * DAY)},
        "funnel": drop_off(events, today),
        "retention": retention(events, today),
        "stored": events.len(),
    })
}

/// The country whose number of events grew most, in percent: from the previous 7 days to the last 7 days, which include
/// the current day.
fn growth(events: &[TestEvent], today: i64) -> Value {
    let count = |country: &str, start: i64| {
        let is_counted =
            |made: &&TestEvent| made.country == country && (start..start + 7 * DAY).contains(&made.time.0);
        events.iter().filter(is_counted).count()
    };
    let this_week = today - 6 * DAY;
    let countries: BTreeSet<&str> = events.iter().map(|made| made.country.as_str()).collect();
    // Each key is the number of events in the last 7 days, in percent of the number in the previous 7 days. The key is
    // a whole number, because an `f64` cannot be a key of a `BTreeMap`. For a country without events in the previous 7
    // days, the growth is not defined.
    let growths: BTreeMap<usize, Value> = countries
        .into_iter()
        .map(|country| (country, count(country, this_week), count(country, this_week - 7 * DAY)))
        .filter(|(_, _, before)| *before > 0)
        .map(|(country, events, before)| {
            (100 * events / before, json!({"country": country, "events": events, "before": before}))
        })
        .collect();
    assert_eq!(growths.len(), COUNTRIES.len(), "no two countries grow by the same percentage: {growths:?}");
    growths.into_values().next_back().expect("there are countries")
}

/// The number of users with any event on a day.
fn users_of(events: &[TestEvent], start: i64) -> usize {
    let of_day = events.iter().filter(|made| (start..start + DAY).contains(&made.time.0));
    of_day.map(|made| &made.user).collect::<BTreeSet<_>>().len()
}

/// The number of users who reached each step in the last 7 days, and the step with the largest loss. The loss of a step
/// is the number of users who reached the previous step but not this one.
fn drop_off(events: &[TestEvent], today: i64) -> Value {
    let names = STEPS.map(|(step, _)| step);
    let of_week: Vec<_> = events.iter().filter(|made| made.time.0 >= today - 6 * DAY).collect();
    let counts = funnel(&of_week, &names.map(|name| vec![name]), DAY);
    let lost = counts.windows(2).map(|pair| pair[0] - pair[1]);
    let (_, worst) = lost.zip(&names[1..]).max().expect("there are steps");
    json!({"steps": names.iter().zip(&counts).collect::<Vec<_>>(), "worst": worst})
}

/// The first day of the calendar week three weeks before the current one, the number of users who signed up in that
/// week, and how many of these users had an event in the second week after it.
fn retention(events: &[TestEvent], today: i64) -> Value {
    // 1970-01-01 was a Thursday, so the Monday of its week is 3 days before it.
    let monday = today - (today / DAY + 3).rem_euclid(7) * DAY;
    let (cohort, later) = (monday - 21 * DAY, monday - 7 * DAY);
    let signed_up = users(events, "signup", cohort, 7 * DAY);
    let came = events.iter().filter(|made| (later..later + 7 * DAY).contains(&made.time.0));
    let came: BTreeSet<_> = came.map(|made| made.user.as_str()).collect();
    json!({"cohort": cohort, "size": signed_up.len(), "week2": signed_up.intersection(&came).count()})
}
