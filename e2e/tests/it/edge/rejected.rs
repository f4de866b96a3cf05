//! The edge keeps some of the lines that it rejects as samples. The table `dead_letters` stores the samples, so that
//! operators can see them. Rejected lines are not counted as events, and the ledger does not count them.

use devstack::wait_for;
use tokio::time::Instant;

use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{DEADLINE, World};

const COUNT_DEAD_LETTERS: &str = "SELECT count() FROM dead_letters WHERE tenant != ''";

#[tokio::test]
async fn a_rejected_line_becomes_a_dead_letter_with_its_reason_and_is_not_counted() {
    let world = World::new("rejected_lines").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let mut rng = fastrand::Rng::with_seed(91);
    let made: Vec<_> = (0..4).map(|_| TestEvent::random(&mut rng, now())).collect();
    let mut body = made.iter().map(TestEvent::line).collect::<Vec<_>>().join("\n").into_bytes();
    let long = format!(r#"{{"event":"a","session":"{}"}}"#, "é".repeat(5000));
    for bad in [&b"{"[..], b"{\"event\":\"\xff\"}", br#"{"event":"a","sequence":-1}"#, long.as_bytes()] {
        body = [&body, b"\n".as_slice(), bad].concat();
    }
    let mut oracle = Oracle::default();
    let answer = edge.http.send("POST", "/v1/events", &[], body).await;
    let sent = made.into_iter().map(Some).chain([None, None, None, None]);
    oracle.record_report(&answer, &sent.collect::<Vec<_>>());
    let refused = edge.http.send("POST", "/v1/counters", &[], r#"{"event":"like","country":"DE"}"#).await;
    assert_eq!(refused.status, 400);
    let json = [("content-type", "application/json")];
    let refused = edge.http.send("POST", "/v1/votes", &json, r#"[{"option":"a"}]"#).await;
    assert_eq!(refused.status, 400);

    wait_for("all samples", DEADLINE, async || world.number(COUNT_DEAD_LETTERS).await == 6).await.unwrap();
    let mut shown =
        world.rows("SELECT reason, tenant, text FROM dead_letters WHERE tenant != '' ORDER BY reason").await;
    let cut = shown.iter_mut().find(|row| row[0] == "edge:too_long:session").unwrap();
    assert!(long.starts_with(&cut[2]) && cut[2].len() >= 4095, "the sample has {} bytes", cut[2].len());
    cut[2] = "long".to_owned();
    assert_eq!(
        shown,
        [
            ["edge:bad_json", "default", "{"],
            ["edge:bad_type:sequence", "default", r#"{"event":"a","sequence":-1}"#],
            ["edge:bad_utf8", "default", "{\"event\":\"\u{fffd}\"}"],
            ["edge:missing_field:poll", "default", r#"{"option":"a"}"#],
            ["edge:too_long:session", "default", "long"],
            ["edge:unknown_event:event", "default", r#"{"event":"like","country":"DE"}"#],
        ]
    );
    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;
    assert_eq!(
        world.number("SELECT sum(lines) FROM ledger").await,
        4,
        "the ledger counts only accepted lines"
    );
    assert_eq!(world.number("SELECT sum(rejected) FROM ledger").await, 0);
    world.run("stream-agg", &["audit"], &[]).await.unwrap();
}

#[tokio::test]
async fn at_most_ten_rejected_lines_a_second_are_kept_as_samples() {
    let world = World::new("rejected_flood").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let start = Instant::now();
    for _ in 0..100 {
        let answer = edge.http.post_lines(&vec!["{}".to_owned(); 100]).await;
        assert_eq!(answer.json()["code"], "all_lines_invalid");
    }
    let most = 10 + 10 * (start.elapsed().as_secs() + 1);
    assert_eq!(edge.metric("ingest_events_rejected_total").await, 10_000);
    // The edge answers without waiting for the samples, so some samples may be stored after the last answer.
    let mut kept = 0;
    let all = wait_for("all kept samples, at least ten, to be stored", DEADLINE, async || {
        kept = edge.metric("ingest_rejected_samples_total").await;
        kept >= 10 && world.number(COUNT_DEAD_LETTERS).await == kept
    });
    all.await.unwrap();
    assert!(kept <= most, "{kept} of 10000 rejected lines were kept as samples, at most {most} are allowed");
    edge.assert_balanced().await;
}
