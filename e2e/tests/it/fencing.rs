//! Two processes that both think that partitions are theirs: one is kept out, and nothing counts twice.

use devstack::wait_for;
use rustix::process::Signal;

use crate::client::Http;
use crate::oracle::{Made, Oracle, now};
use crate::world::{DEADLINE, Edge, World};

/// Posts 20 requests of 10 events.
async fn post(edge: &Edge, rng: &mut fastrand::Rng, oracle: &mut Oracle) {
    for _ in 0..20 {
        let lines: Vec<_> = (0..10).map(|_| Some(Made::random(rng, now()))).collect();
        let text: Vec<_> = lines.iter().flatten().map(Made::line).collect();
        oracle.reported(&edge.http.post_lines(&text).await, &lines);
    }
}

#[tokio::test]
async fn a_process_whose_place_another_one_took_ends_and_says_so() {
    let world = World::new("fencing_place").await;
    let edge = world.edge().await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(60), Oracle::default());
    let place = [("GROUP_INSTANCE_ID", "the-only-one")];
    let mut first = world.start("stream-agg", &place);
    first.wait_ready().await.unwrap();
    post(&edge, &mut rng, &mut oracle).await;

    let mut second = world.start("stream-agg", &place);
    let status = first.process().ended(DEADLINE).await.unwrap();
    assert!(!status.success());
    let last = first.process().log_tail();
    assert!(last.contains("another process has taken this one's place in the group"), "{last}");

    second.wait_ready().await.unwrap();
    post(&edge, &mut rng, &mut oracle).await;
    world.assert_counted(&oracle.counts()).await;
}

#[tokio::test]
async fn an_owner_that_slept_past_its_session_counts_nothing_twice() {
    let world = World::new("fencing_sleep").await;
    let edge = world.edge().await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(61), Oracle::default());
    let impatient = [("KAFKA_OPT_session.timeout.ms", "3000"), ("KAFKA_OPT_heartbeat.interval.ms", "500")];
    let mut sleeper = world.start("stream-agg", &impatient);
    sleeper.wait_ready().await.unwrap();
    let mut other = world.start("stream-agg", &impatient);
    other.wait_ready().await.unwrap();
    let admin = Http::new(other.admin());
    for _ in 0..3 {
        post(&edge, &mut rng, &mut oracle).await;
        // In the middle of whatever it does with them.
        sleeper.process().signal(Signal::STOP).unwrap();
        post(&edge, &mut rng, &mut oracle).await;
        let taken_over = wait_for("the other one to own all partitions", DEADLINE, async || {
            admin.metric("stream_agg_partitions_owned").await == Some(4)
        });
        taken_over.await.unwrap();
        sleeper.process().signal(Signal::CONT).unwrap();
        post(&edge, &mut rng, &mut oracle).await;
        let shared_again = wait_for("the sleeper to have its share again", DEADLINE, async || {
            admin.metric("stream_agg_partitions_owned").await < Some(4)
        });
        shared_again.await.unwrap();
    }
    world.assert_counted(&oracle.counts()).await;
}
