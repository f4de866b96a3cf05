//! `stream-agg migrate`, the aggregator and the query API each work with the rights of their own ClickHouse user in
//! `users.xml`.

use devstack::clickhouse::LOCAL_PASSWORD;
use schemas::rollup::Rollups;

use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{QueryApi, World};

const FIELD: &str = "[[field]]\nname = \"plan\"\npath = \"plan\"\ntype = \"string\"\n";

/// The variables of a service that logs in to ClickHouse as `user`.
fn login(user: &str) -> [(&str, &str); 2] {
    [("CLICKHOUSE_USER", user), ("CLICKHOUSE_PASSWORD", LOCAL_PASSWORD)]
}

#[tokio::test]
async fn the_users_migrator_loader_and_poller_have_enough_rights() {
    let rollups = format!("{}\n{FIELD}", Rollups::built_in());
    let (_stack, world) =
        World::on_own_servers_declaring("rights", &Rollups::parse("rights", &rollups).unwrap()).await;
    // Migrates twice as `migrator`, the user of `migrate`, with a field that needs a column. The databases do not exist
    // before the first migration.
    let file = world.write("rollups.toml", &rollups);
    let elsewhere = [
        ("CLICKHOUSE_DATABASE", "rights_of_migrator"),
        ("BI_DATABASE", "bi_rights_of_migrator"),
        ("ROLLUPS_FILE", &*file),
    ];
    for _ in 0..2 {
        world.migrate_with(&[&login("migrator")[..], &elsewhere].concat()).await;
    }
    let edge = world.edge().await;
    let mut aggregator = world.start("stream-agg", &login("loader"));
    let mut api = world.start("query-api", &login("poller"));
    aggregator.wait_ready().await.unwrap();
    api.wait_ready().await.unwrap();
    let api = QueryApi::new(api);

    let mut oracle = Oracle::default();
    let time = now();
    let mut rng = fastrand::Rng::with_seed(3);
    let lines: Vec<_> = (0..50).map(|_| Some(TestEvent::random(&mut rng, time))).collect();
    let text: Vec<_> = lines.iter().flatten().map(TestEvent::line).collect();
    oracle.record_report(&edge.http.post_lines(&text).await, &lines);

    world.assert_counted(&oracle.counts()).await;
    let (users, clicks, impressions) = oracle.hour(time);
    api.assert_hour(time.0, users, clicks, impressions).await;
}
