//! A repeated event or record counts once, and an unreadable line becomes a dead letter.

use devstack::wait_for;
use uuid::Uuid;

use crate::client::Http;
use crate::oracle::{Oracle, TestEvent, now};
use crate::wire::enriched;
use crate::world::{DEADLINE, World};

/// The headers of a record of three lines: the format version, the number of lines, and the id of the record.
fn headers(id: &str) -> [(&str, &str); 3] {
    [("v", "1"), ("n", "3"), ("id", id)]
}

/// Waits until the ledger has this many lines.
async fn wait_for_lines(world: &World, lines: u64) {
    let waited = wait_for(format!("{lines} lines in the ledger"), DEADLINE, async || {
        world.number("SELECT sum(lines) FROM ledger").await >= lines
    });
    waited.await.unwrap();
}

#[tokio::test]
async fn a_repeated_request_counts_once_and_lines_without_event_id_each_time() {
    let world = World::new("repeats_requests").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let mut rng = fastrand::Rng::with_seed(30);
    let named: Vec<_> = (0..40).map(|_| TestEvent::random(&mut rng, now())).collect();
    let unnamed: Vec<_> = (0..10).map(|_| TestEvent::random(&mut rng, now())).collect();
    let mut lines: Vec<_> =
        named.iter().enumerate().map(|(number, made)| made.line_with_id(number)).collect();
    lines.extend(unnamed.iter().map(TestEvent::line));
    let mut oracle = Oracle::default();
    named.iter().for_each(|made| oracle.record(made));
    for _ in 0..3 {
        let answer = edge.http.post_lines(&lines).await;
        assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (200, Some(50)), "{}", answer.text);
        unnamed.iter().for_each(|made| oracle.record(made));
    }
    wait_for_lines(&world, 150).await;
    world.assert_counted(&oracle.counts()).await;
    assert_eq!(world.number("SELECT sum(duplicates) FROM ledger").await, 80);
    assert_eq!(world.number("SELECT sum(length(ids)) FROM ledger").await, 40, "the ids of stored lines");
    let named = "SELECT uniqExact(event_id) FROM events WHERE toUInt128(event_id) != 0";
    assert_eq!(world.number(named).await, 40);
    assert_eq!(
        world.number("SELECT count() FROM dead_letters").await,
        0,
        "a batch without dead letters writes no marker row"
    );
}

#[tokio::test]
async fn a_record_that_is_in_the_log_twice_counts_once() {
    let world = World::new("repeats_records").await;
    let mut rng = fastrand::Rng::with_seed(31);
    let made: Vec<_> = (0..3).map(|_| TestEvent::random(&mut rng, now())).collect();
    let value = made.iter().map(|made| enriched(&made.line())).collect::<Vec<_>>().join("\n");
    let id = "0192f0c1-0000-7000-8000-00000000000a";
    world.produce(1, &headers(id), value.as_bytes());
    world.produce(1, &headers(id), value.as_bytes());
    let _aggregator = world.aggregator().await;
    wait_for_lines(&world, 6).await;
    let mut oracle = Oracle::default();
    made.iter().for_each(|made| oracle.record(made));
    world.assert_counted(&oracle.counts()).await;
    let ledger = world
        .rows(
            "SELECT kp, ko, record_id, lines, duplicates, stored FROM ledger WHERE tenant = '*' ORDER BY ko",
        )
        .await;
    assert_eq!(ledger, [["1", "0", id, "3", "0", "3"], ["1", "1", id, "3", "3", "0"]]);
}

#[tokio::test]
async fn an_unreadable_line_becomes_a_dead_letter_and_its_neighbours_are_stored() {
    let world = World::new("repeats_dead_letters").await;
    let mut rng = fastrand::Rng::with_seed(32);
    let made: Vec<_> = (0..2).map(|_| TestEvent::random(&mut rng, now())).collect();
    let good: Vec<_> = made.iter().map(|made| enriched(&made.line())).collect();
    let unread = enriched(r#"{"event":7}"#);
    let value = [good[0].as_str(), &unread, &good[1]].join("\n");
    world.produce(2, &headers("0192f0c1-0000-7000-8000-00000000000b"), value.as_bytes());
    world.produce(2, &[], b"of some other program, \xff");
    let _aggregator = world.aggregator().await;
    wait_for_lines(&world, 4).await;
    let mut oracle = Oracle::default();
    made.iter().for_each(|made| oracle.record(made));
    world.assert_counted(&oracle.counts()).await;

    let letters = "SELECT tenant, reason, kp, ko, line, text, hwm
                   FROM dead_letters WHERE tenant != '' ORDER BY ko";
    let waited = wait_for("two dead letters", DEADLINE, async || world.rows(letters).await.len() == 2);
    waited.await.unwrap();
    assert_eq!(
        world.rows(letters).await,
        [
            ["default", "bad_type", "2", "0", "1", &unread, "0"],
            ["?", "bad_header", "2", "1", "0", "of some other program, \u{fffd}", "0"],
        ]
    );
    assert_eq!(world.number("SELECT sum(rejected) FROM ledger").await, 2);
    let marker = "SELECT max(hwm) FROM dead_letters WHERE tenant = '' AND kp = 2 AND reason = ''";
    assert_eq!(world.number(marker).await, 2, "the marker covers every offset below 2");
    let unmarked =
        "SELECT count() FROM (SELECT _part FROM dead_letters GROUP BY _part HAVING countIf(tenant = '') = 0)";
    assert_eq!(world.number(unmarked).await, 0, "every part has a marker row");
}

#[tokio::test]
async fn a_record_with_fewer_lines_than_its_header_says_is_reported_and_counted() {
    let world = World::new("repeats_miscounted").await;
    let made = TestEvent::random(&mut fastrand::Rng::with_seed(34), now());
    let line = enriched(&made.line());
    let value = |lines: usize| vec![line.as_str(); lines].join("\n");
    let ids = [Uuid::now_v7().to_string(), Uuid::now_v7().to_string()];
    world.produce(1, &headers(&ids[0]), value(3).as_bytes());
    world.produce(1, &headers(&ids[1]), value(2).as_bytes());
    let aggregator = world.aggregator().await;
    wait_for_lines(&world, 5).await;
    let mut oracle = Oracle::default();
    (0..5).for_each(|_| oracle.record(&made));
    world.assert_counted(&oracle.counts()).await;
    let admin = Http::new(aggregator.admin());
    assert_eq!(admin.metric("stream_agg_records_miscounted_total").await, Some(1));
    assert_eq!(
        world.number("SELECT count() FROM dead_letters").await,
        0,
        "dead letters of a miscounted record"
    );
}

#[tokio::test]
async fn a_spooled_record_counts_once_even_if_the_window_has_dropped_it() {
    let world = World::new("repeats_spooled").await;
    let mut rng = fastrand::Rng::with_seed(33);
    let made: Vec<_> = (0..6).map(|_| TestEvent::random(&mut rng, now())).collect();
    let value =
        |made: &[TestEvent]| made.iter().map(|made| enriched(&made.line())).collect::<Vec<_>>().join("\n");
    let (ids, old) =
        ([Uuid::now_v7().to_string(), Uuid::now_v7().to_string()], "0192f0c1-0000-7000-8000-00000000000c");
    world.produce(1, &headers(&ids[0]), value(&made[..3]).as_bytes());
    world.produce(1, &headers(&ids[1]), value(&made[3..]).as_bytes());
    // The window holds one id. When the spooled records arrive, the window has dropped the id of the first record, and
    // only the ledger still has it.
    let mut aggregator = world.start("stream-agg", &[("DEDUP_WINDOW_IDS", "1")]);
    aggregator.wait_ready().await.unwrap();
    wait_for_lines(&world, 6).await;
    world.produce(1, &spooled(&ids[0]), value(&made[..3]).as_bytes());
    world.produce(1, &spooled(old), value(&made[..1]).as_bytes());
    wait_for_lines(&world, 10).await;
    let mut oracle = Oracle::default();
    made.iter().for_each(|made| oracle.record(made));
    world.assert_counted(&oracle.counts()).await;
    let ledger = "SELECT ko, duplicates, rejected FROM ledger WHERE tenant = '*' AND ko >= 2 ORDER BY ko";
    assert_eq!(world.rows(ledger).await, [["2", "3", "0"], ["3", "0", "1"]]);
    let reason = "SELECT reason FROM dead_letters WHERE tenant != ''";
    wait_for("a dead letter", DEADLINE, async || !world.rows(reason).await.is_empty()).await.unwrap();
    assert_eq!(
        world.rows(reason).await,
        [["spooled_too_long"]],
        "an earlier copy may have expired in the ledger"
    );
}

/// The headers of a record of three lines that came through a spool.
fn spooled(id: &str) -> Vec<(&str, &str)> {
    headers(id).into_iter().chain([("spooled", "1")]).collect()
}

/// Two records of three events each: an oracle that has counted the events, the ids of the records, and their values.
fn two_records(seed: u64) -> (Oracle, [String; 2], [String; 2]) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut oracle = Oracle::default();
    let values = [(); 2].map(|()| {
        let made: Vec<_> = (0..3).map(|_| TestEvent::random(&mut rng, now())).collect();
        made.iter().for_each(|made| oracle.record(made));
        made.iter().map(|made| enriched(&made.line())).collect::<Vec<_>>().join("\n")
    });
    (oracle, [(); 2].map(|()| Uuid::now_v7().to_string()), values)
}

#[tokio::test]
async fn a_spooled_record_that_is_twice_in_one_batch_counts_once_with_any_window() {
    let world = World::new("repeats_in_a_batch").await;
    let (oracle, ids, values) = two_records(34);
    world.produce(1, &headers(&ids[0]), values[0].as_bytes());
    world.produce(1, &headers(&ids[1]), values[1].as_bytes());
    world.produce(1, &spooled(&ids[0]), values[0].as_bytes());
    // All three records are in one batch, and the window holds one id.
    let small = [("DEDUP_WINDOW_IDS", "1"), ("BATCH_MAX_AGE", "3s")];
    let mut aggregator = world.start("stream-agg", &small);
    aggregator.wait_ready().await.unwrap();
    wait_for_lines(&world, 9).await;
    world.assert_counted(&oracle.counts()).await;
    let markers = "SELECT uniqExact(hwm) FROM ledger WHERE tenant = ''";
    assert_eq!(world.number(markers).await, 1, "all three records are in one batch");
}

#[tokio::test]
async fn a_spooled_record_in_a_rebuilt_batch_is_not_a_repeat_of_itself() {
    let world = World::new("repeats_rebuilt").await;
    let (oracle, ids, values) = two_records(35);
    world.rows("ALTER TABLE events ADD CONSTRAINT closed CHECK hwm > 1000").await;
    world.produce(1, &spooled(&ids[0]), values[0].as_bytes());
    world.produce(1, &spooled(&ids[1]), values[1].as_bytes());
    let mut aggregator = world.start("stream-agg", &[("BATCH_MAX_AGE", "3s")]);
    // The ledger has rows for both records, but the raw table refuses the rows of their events.
    wait_for_lines(&world, 6).await;
    aggregator.kill9();
    world.rows("ALTER TABLE events DROP CONSTRAINT closed").await;
    let _aggregator = world.aggregator().await;
    world.assert_counted(&oracle.counts()).await;
}

#[tokio::test]
async fn a_spooled_record_is_looked_up_once_the_ledger_has_all_earlier_batches() {
    let world = World::new("repeats_ahead").await;
    let (oracle, ids, values) = two_records(36);
    world.rows("ALTER TABLE ledger ADD CONSTRAINT closed CHECK hwm > 1000").await;
    world.produce(1, &headers(&ids[0]), values[0].as_bytes());
    world.produce(1, &headers(&ids[1]), values[1].as_bytes());
    let aggregator = world.start("stream-agg", &[("DEDUP_WINDOW_IDS", "1")]);
    let admin = Http::new(aggregator.admin());
    let refused = async || admin.metric("stream_agg_insert_errors_total").await.unwrap_or_default();
    wait_for("a refused insert", DEADLINE, async || refused().await > 0).await.unwrap();
    world.produce(1, &spooled(&ids[0]), values[0].as_bytes());
    // The aggregator retries the refused insert after 15 s. A lookup of the spooled record that did not wait for the
    // ledger would have run before this retry and found nothing.
    let before = refused().await;
    wait_for("another refused insert", DEADLINE, async || refused().await > before).await.unwrap();
    world.rows("ALTER TABLE ledger DROP CONSTRAINT closed").await;
    wait_for_lines(&world, 9).await;
    world.assert_counted(&oracle.counts()).await;
}
