//! Outages of ClickHouse: nothing is lost, memory stays bounded, the lag disappears, and all aggregators recover.

use std::time::Duration;

use devstack::{Kafka, usage, wait_for};
use schemas::time::HOUR;
use tokio::task;
use tokio::time::{self, Instant};

use crate::client::Http;
use crate::oracle::now;
use crate::systems::load;
use crate::world::{DEADLINE, PARTITIONS, World};

/// Length of the load before the outage and after it.
const MARGIN: Duration = Duration::from_secs(15);
/// After ClickHouse is up again, the backlog must be stored within the length of the outage plus this time.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Largest allowed peak memory of the aggregator, in MiB.
const MOST_MIB: f64 = 768.0;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_clickhouse_of_fifteen_seconds_loses_nothing() {
    run("outage_15", Duration::from_secs(15)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes more than five minutes: ./dev test --full"]
async fn an_outage_of_clickhouse_of_five_minutes_loses_nothing() {
    run("outage_300", Duration::from_secs(300)).await;
}

#[tokio::test]
#[ignore = "takes more than a minute, because aggregators check the tables once a minute: ./dev test --full"]
async fn an_aggregator_without_partitions_is_ready_again_after_an_outage_of_clickhouse() {
    let (mut stack, world) = World::on_own_servers("outage_spare").await;
    // One more than the topic has partitions.
    let aggregators: Vec<_> = (0..=PARTITIONS).map(|_| world.start("stream-agg", &[])).collect();
    let admins: Vec<_> = aggregators.iter().map(|aggregator| Http::new(aggregator.admin())).collect();
    let all_answer = async |status: u16| {
        for admin in &admins {
            if !admin.try_send("GET", "/readyz", &[], "").await.is_ok_and(|answer| answer.status == status) {
                return false;
            }
        }
        true
    };
    wait_for("all aggregators to be ready", DEADLINE, async || all_answer(200).await).await.unwrap();
    stack.clickhouse.kill9().unwrap();
    wait_for("all of them to notice the outage", 2 * DEADLINE, async || all_answer(503).await).await.unwrap();
    stack.clickhouse.start().await.unwrap();
    wait_for("all of them to be ready again", DEADLINE, async || all_answer(200).await).await.unwrap();
}

#[expect(clippy::print_stderr, reason = "the output of the test shows the measurements")]
async fn run(name: &'static str, outage: Duration) {
    let (mut stack, world) = World::on_own_servers(name).await;
    let (edge, mut aggregator, _api) = world.pipeline().await;
    let aggregator = aggregator.process().id();
    let peak_mib = || usage::peak_mib(aggregator).unwrap();
    let kafka = Kafka::external(stack.kafka.brokers());
    let log_end = || task::block_in_place(|| kafka.log_ends(name).unwrap().into_iter().sum::<u64>());

    let breaking = async {
        time::sleep(MARGIN).await;
        let (before, applied_before) = (peak_mib(), applied(&world).await);
        stack.clickhouse.kill9().unwrap();
        time::sleep(outage).await;
        let (at_its_end, log_end) = (peak_mib(), log_end());
        stack.clickhouse.start().await.unwrap();
        let back = Instant::now();
        let caught_up = wait_for("the records of the outage to be applied", outage + CATCH_UP, async || {
            applied(&world).await >= log_end
        });
        caught_up.await.unwrap();
        eprintln!("{name}: {} records waited when ClickHouse came back", log_end - applied_before);
        eprintln!("{name}: all of them were applied {:.1} s later", back.elapsed().as_secs_f64());
        eprintln!("{name}: aggregator's peak MiB: {before:.0} before the outage, {at_its_end:.0} at its end");
    };
    let length = MARGIN + outage + MARGIN;
    let (oracle, ()) = tokio::join!(load::send(&edge, now().floor(HOUR), length), breaking);
    let counts = oracle.counts();
    world.assert_counted(&counts).await;
    edge.assert_balanced().await;
    let peak = peak_mib();
    eprintln!("{name}: aggregator's peak MiB: {peak:.0} until everything was stored");
    eprintln!("{name}: {} events in {} s, counted exactly", counts.accepted(), length.as_secs());
    assert!(peak <= MOST_MIB, "the aggregator's peak memory is {peak} MiB, above {MOST_MIB} MiB");
}

/// Number of records that `progress` shows as applied; 0 while ClickHouse is down.
async fn applied(world: &World) -> u64 {
    let sql = "SELECT sum(next) FROM (SELECT max(next_offset) AS next FROM progress GROUP BY kp)";
    world.try_rows(sql).await.map_or(0, |rows| rows[0][0].parse().unwrap())
}
