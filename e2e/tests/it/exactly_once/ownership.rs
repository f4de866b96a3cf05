//! Ownership of partitions: no record is counted by two aggregators, and no partition stays without an owner for long.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use devstack::{Service, wait_for};
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use rustix::process::Signal;
use tokio::task;

use crate::client::Http;
use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{DEADLINE, Edge, STATIC_MEMBER, World};

/// Posts 20 requests of 10 events.
async fn post(edge: &Edge, rng: &mut fastrand::Rng, oracle: &mut Oracle) {
    for _ in 0..20 {
        let lines: Vec<_> = (0..10).map(|_| Some(TestEvent::random(rng, now()))).collect();
        let text: Vec<_> = lines.iter().flatten().map(TestEvent::line).collect();
        oracle.record_report(&edge.http.post_lines(&text).await, &lines);
    }
}

#[tokio::test]
async fn a_member_that_another_process_replaced_exits_and_logs_the_reason() {
    let world = World::new("ownership_place").await;
    let edge = world.edge().await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(60), Oracle::default());
    let mut first = world.start("stream-agg", &[STATIC_MEMBER]);
    first.wait_ready().await.unwrap();
    post(&edge, &mut rng, &mut oracle).await;

    let mut second = world.start("stream-agg", &[STATIC_MEMBER]);
    let status = first.process().wait_for_exit(DEADLINE).await.unwrap();
    assert!(!status.success());
    let last = first.process().log_tail();
    assert!(last.contains("has taken the place of this process"), "{last}");

    second.wait_ready().await.unwrap();
    post(&edge, &mut rng, &mut oracle).await;
    world.assert_counted(&oracle.counts()).await;
}

#[tokio::test]
async fn an_owner_that_was_paused_beyond_its_session_counts_nothing_twice() {
    let world = World::new("ownership_sleep").await;
    let edge = world.edge().await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(61), Oracle::default());
    let short_session =
        [("KAFKA_OPT_session.timeout.ms", "3000"), ("KAFKA_OPT_heartbeat.interval.ms", "500")];
    let mut sleeper = world.start("stream-agg", &short_session);
    sleeper.wait_ready().await.unwrap();
    let mut other = world.start("stream-agg", &short_session);
    other.wait_ready().await.unwrap();
    let admin = Http::new(other.admin());
    for _ in 0..3 {
        post(&edge, &mut rng, &mut oracle).await;
        // SIGSTOP pauses the aggregator `sleeper` at a random moment while it stores the events that were just posted.
        sleeper.process().signal(Signal::STOP).unwrap();
        post(&edge, &mut rng, &mut oracle).await;
        let taken_over = wait_for("the other aggregator to own all partitions", DEADLINE, async || {
            admin.metric("stream_agg_partitions_owned").await == Some(4)
        });
        taken_over.await.unwrap();
        sleeper.process().signal(Signal::CONT).unwrap();
        post(&edge, &mut rng, &mut oracle).await;
        let shared_again = wait_for("the paused aggregator to get partitions again", DEADLINE, async || {
            admin.metric("stream_agg_partitions_owned").await < Some(4)
        });
        shared_again.await.unwrap();
    }
    world.assert_counted(&oracle.counts()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_counts_at_once_after_a_kafka_outage_longer_than_its_session() {
    const SESSION: Duration = Duration::from_secs(30);
    let (mut stack, world) = World::on_own_servers("ownership_outage").await;
    let mut edge = world.edge().await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(63), Oracle::default());
    let session = SESSION.as_millis().to_string();
    let mut aggregator =
        world.start("stream-agg", &[STATIC_MEMBER, ("KAFKA_OPT_session.timeout.ms", &session)]);
    aggregator.wait_ready().await.unwrap();
    post(&edge, &mut rng, &mut oracle).await;
    let committed = || (0..4).map(|partition| world.try_committed(partition)).collect::<Vec<_>>();
    let all_committed = async || {
        let offsets = committed().into_iter().flatten().map(|(offset, _)| offset.cast_unsigned());
        task::block_in_place(|| stack.kafka.log_ends(world.name()).unwrap()).into_iter().eq(offsets)
    };
    wait_for("the commits of all events", DEADLINE, all_committed).await.unwrap();

    // The paused ClickHouse holds up the insert of a declared batch until Kafka is killed. After the insert, no group
    // coordinator answers the commit of the batch. Either the session of the member ends and the member loses its
    // partitions, or the outcome of the commit is unknown.
    let before = committed();
    stack.clickhouse.process().unwrap().signal(Signal::STOP).unwrap();
    post(&edge, &mut rng, &mut oracle).await;
    wait_for("the intent of a batch", DEADLINE, async || committed() != before).await.unwrap();
    stack.kafka.kill9().unwrap();
    stack.clickhouse.process().unwrap().signal(Signal::CONT).unwrap();
    let ended = async || {
        let log = aggregator.process().log_tail();
        log.contains("lost") || log.contains("the outcome of a commit is unknown")
    };
    wait_for("a lost session or an unknown outcome of a commit", SESSION + DEADLINE, ended).await.unwrap();

    stack.kafka.start().await.unwrap();
    edge.service.wait_ready().await.unwrap();
    post(&edge, &mut rng, &mut oracle).await;
    // librdkafka forgot the member id of the aggregator during the outage and cannot leave the group without this id.
    // So the group keeps that member until the member's session ends. Before then, only a static member with the same
    // `group.instance.id` can replace the member and read its partitions.
    let accepted = oracle.counts().accepted();
    let stored = async || world.stored().await >= accepted;
    wait_for("the events after the outage", SESSION / 2, stored).await.unwrap();
    world.assert_counted(&oracle.counts()).await;
}

/// A group member that never releases a revoked partition. It therefore never starts the rebalance that would assign
/// the partition to another member.
#[derive(Default)]
struct Stubborn {
    assigned: AtomicUsize,
    revoked: AtomicUsize,
}

impl ClientContext for Stubborn {}

impl ConsumerContext for Stubborn {
    fn rebalance(&self, member: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            member.incremental_assign(list).unwrap();
            self.assigned.fetch_add(list.count(), Ordering::Relaxed);
        } else {
            self.revoked.fetch_add(list.count(), Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn partitions_without_an_owner_are_assigned_again() {
    let world = World::new("ownership_nobody").await;
    let stubborn: BaseConsumer<Stubborn> = world
        .kafka()
        .set("group.id", world.name())
        .set("group.instance.id", "first")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .create_with_context(Stubborn::default())
        .unwrap();
    stubborn.subscribe(&[world.name()]).unwrap();
    let wait_until = async |what: &str, count: &AtomicUsize, partitions: usize| {
        let waited = wait_for(what, DEADLINE, async || {
            let _served = stubborn.poll(Duration::from_millis(10));
            count.load(Ordering::Relaxed) == partitions
        });
        waited.await.unwrap();
    };
    wait_until("all partitions to be assigned", &stubborn.context().assigned, 4).await;
    let mut second = world.start("stream-agg", &[("GROUP_INSTANCE_ID", "second")]);
    wait_until("half of the partitions to be revoked", &stubborn.context().revoked, 2).await;
    second.wait_ready().await.unwrap();

    // The aggregator `first` joins as the same static member as `stubborn`, but does not know which partitions were
    // revoked from `stubborn`.
    let mut first = world.start("stream-agg", &[("GROUP_INSTANCE_ID", "first")]);
    first.wait_ready().await.unwrap();
    let edge = world.edge().await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(62), Oracle::default());
    post(&edge, &mut rng, &mut oracle).await;
    world.assert_counted(&oracle.counts()).await;
    let found = async |service: &Service| {
        Http::new(service.admin()).metric("stream_agg_orphans_total").await.unwrap_or_default()
    };
    assert!(found(&first).await + found(&second).await >= 2, "the aggregators found the orphaned partitions");
}
