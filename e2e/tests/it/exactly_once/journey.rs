//! Exactly once without faults: every event that the edge accepts counts once in every table and answer.

use devstack::wait_for;
use schemas::time::{HOUR, UnixMillis};

use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{DEADLINE, World};

#[tokio::test]
async fn the_answers_count_posted_events_exactly() {
    let world = World::new("journey").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut oracle = Oracle::default();
    let time = now().floor(HOUR);

    for _ in 0..40 {
        let lines: Vec<_> =
            (0..30).map(|_| (rng.u8(..10) > 0).then(|| TestEvent::random(&mut rng, time))).collect();
        let text: Vec<_> = lines
            .iter()
            .map(|made| made.as_ref().map_or("{\"event\":1}".to_owned(), TestEvent::line))
            .collect();
        oracle.record_report(&edge.http.post_lines(&text).await, &lines);
    }

    let (users, clicks, impressions) = oracle.hour(time);
    assert!(users > 100 && clicks > 100 && impressions > 100, "there is enough traffic to count");
    api.assert_hour(time.0, users, clicks, impressions).await;
    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;
}

#[tokio::test]
async fn an_answer_says_how_old_it_is() {
    let world = World::new("journey_age").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let time = now();
    assert_eq!(edge.http.post(&format!("/analytics/{}/ann/click", time.0)).await.status, 204);
    api.assert_hour(time.0, 1, 1, 0).await;

    // Soon the `as_of` of the answer is after the click, but it is never in the future.
    let path = format!("/analytics?timestamp={}", time.0);
    let mut answer = api.http.get(&path).await;
    let fresh = wait_for("an answer with an `as_of` after the click", DEADLINE, async || {
        answer = api.http.get(&path).await;
        UnixMillis::parse(answer.header("x-as-of")).is_some_and(|as_of| time < as_of && as_of <= now())
    });
    fresh.await.unwrap();
    let age: i64 = answer.header("x-age-ms").parse().expect("X-Age-Ms is a number of milliseconds");
    assert!((0..=60_000).contains(&age), "{age}");
    assert!(answer.header("content-type").starts_with("text/plain"), "{}", answer.header("content-type"));
}

#[tokio::test]
async fn an_aggregator_that_joins_or_leaves_changes_no_count() {
    let world = World::new("journey_rebalance").await;
    let (edge, mut first, api) = world.pipeline().await;
    let mut rng = fastrand::Rng::with_seed(2);
    let mut oracle = Oracle::default();
    let time = now().floor(HOUR);
    let mut post = async |oracle: &mut Oracle| {
        for _ in 0..20 {
            let lines: Vec<_> = (0..10).map(|_| Some(TestEvent::random(&mut rng, time))).collect();
            let text: Vec<_> = lines.iter().flatten().map(TestEvent::line).collect();
            oracle.record_report(&edge.http.post_lines(&text).await, &lines);
        }
    };

    post(&mut oracle).await;
    let _second = world.aggregator().await;
    post(&mut oracle).await;
    assert!(first.terminate().await.unwrap().success());
    post(&mut oracle).await;

    let (users, clicks, impressions) = oracle.hour(time);
    api.assert_hour(time.0, users, clicks, impressions).await;
    world.assert_counted(&oracle.counts()).await;
}
