//! Reactions by path: `POST /analytics/{ms}/{user}/{click|impression}`, and the counts of an hour, which the query API
//! answers to `GET /analytics?timestamp={ms}`. More edges, aggregators and query APIs can be started while events are
//! counted.

use crate::oracle::now;
use crate::world::World;

#[tokio::test]
async fn services_can_be_added_while_events_are_counted() {
    let world = World::new("reactions_by_path").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let time = now();
    let react = async |edge: &crate::world::Edge, users: std::ops::Range<u32>| {
        for user in users {
            let path = format!("/analytics/{}/user-{user}", time.0);
            for reaction in ["click", "click", "impression"] {
                let answer = edge.http.post(&format!("{path}/{reaction}")).await;
                assert_eq!((answer.status, answer.text.as_str()), (204, ""));
            }
        }
    };

    react(&edge, 0..50).await;
    let (other_edge, _other_aggregator, other_api) = world.pipeline().await;
    react(&other_edge, 25..75).await;
    react(&edge, 50..100).await;

    // Each of the 100 users has reacted once or twice, 150 times in total, each time with two clicks and an impression.
    api.assert_hour(time.0, 100, 300, 150).await;
    other_api.assert_hour(time.0, 100, 300, 150).await;
}

#[tokio::test]
async fn what_is_not_a_reaction_is_refused() {
    let world = World::new("reactions_by_path_refused").await;
    let edge = world.edge().await;
    let check = async |path: &str, status: u16| {
        assert_eq!(edge.http.post(path).await.status, status, "{path}");
    };
    check("/analytics/1700000000000/ann/purchase", 404).await;
    check("/analytics/1700000000000/ann", 404).await;
    check("/analytics/1700000000000/ann/click/again", 404).await;
    check("/analytics/yesterday/ann/click", 400).await;
    check("/analytics/1700000000000.5/ann/click", 400).await;
    check("/analytics/99999999999999999999/ann/click", 400).await;
    check("/analytics/1700000000000//click", 400).await;
    check(&format!("/analytics/1700000000000/{}/click", "x".repeat(201)), 400).await;
    check("/analytics/1700000000000/%FF/click", 400).await;
    check("/analytics/1700000000000/J%C3%BCrgen%20M/click", 204).await;
    edge.assert_balanced().await;
}

#[tokio::test]
async fn an_hour_without_data_is_zeros() {
    let world = World::new("reactions_empty").await;
    let api = world.query_api().await;
    api.assert_hour(now().0, 0, 0, 0).await;
    api.assert_hour(1_000_000_000_000, 0, 0, 0).await;
}
