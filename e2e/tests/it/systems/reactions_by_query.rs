//! Reactions by query: `POST /analytics?timestamp=…&user=…&click`. One reaction in twenty has a time in a past hour.

use std::collections::BTreeMap;

use schemas::time::{HOUR, UnixMillis};

use crate::oracle::{Oracle, TestEvent, now};
use crate::world::World;

#[tokio::test]
async fn reactions_with_past_times_count_in_their_hour() {
    let world = World::new("reactions_by_query").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let mut rng = fastrand::Rng::with_seed(5);
    let mut oracle = Oracle::default();
    let mut hours = BTreeMap::new();
    let current = now();
    // Past hours: a hot one (see the glossary), a cold one, and a cold one 365 days ago.
    let past = [3 * HOUR, 100 * HOUR, 24 * 365 * HOUR];
    for n in 0..400 {
        let back = if n % 20 == 0 { past[rng.usize(..past.len())] } else { 0 };
        let time = UnixMillis(current.0 - back);
        let event = if rng.bool() { "click" } else { "impression" };
        let user = format!("user {}", rng.u8(..40));
        let query = format!("timestamp={}&user={}&{event}", time.0, user.replace(' ', "%20"));
        let answer = edge.http.post(&format!("/analytics?{query}")).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
        oracle.record(&TestEvent {
            time,
            event: event.to_owned(),
            user,
            country: String::new(),
            device_os: String::new(),
            value: 0,
        });
        hours.insert(time.floor(HOUR), time);
    }
    assert_eq!(hours.len(), 4);
    for time in hours.values() {
        let (users, clicks, impressions) = oracle.hour(*time);
        api.assert_hour(time.0, users, clicks, impressions).await;
    }
    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;
}

#[tokio::test]
async fn a_missing_or_malformed_parameter_is_named_in_the_answer() {
    let world = World::new("reactions_by_query_refused").await;
    let (edge, api) = tokio::join!(world.edge(), world.query_api());
    for (query, named) in [
        ("", "click"),
        ("user=ann&click", "timestamp"),
        ("timestamp=&user=ann&click", "timestamp"),
        ("timestamp=now&user=ann&click", "timestamp"),
        ("timestamp=1700000000000&click", "user"),
        ("timestamp=1700000000000&user=&click", "user"),
        ("timestamp=1700000000000&user=ann", "click"),
        ("timestamp=1700000000000&user=ann&click&impression", "impression"),
        ("timestamp=1700000000000&user=ann&purchase", "click"),
    ] {
        let answer = edge.http.post(&format!("/analytics?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
        let message = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(named), "{query} is answered with {message:?}, which does not name {named}");
    }
    for query in
        ["", "timestamp=", "timestamp=now", "timestamp=-99999999999999999", "timestamp=1700000000000&hour=1"]
    {
        let answer = api.http.get(&format!("/analytics?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{query}");
    }
}
