//! Every JSON line that the edge accepts is stored and readable. A line that ClickHouse refused would stop its
//! partition.

use std::iter::repeat_with;

use devstack::wait_for;
use schemas::event;

use crate::client::Http;
use crate::hostile;
use crate::world::{DEADLINE, World};

/// Number of requests.
const REQUESTS: usize = 16;
/// Number of lines in each request.
const LINES: usize = 250;

/// The results of JSON functions on the `props` of the only event.
async fn extracted(world: &World, functions: &str) -> Vec<String> {
    world.rows(&format!("SELECT {functions} FROM events WHERE tenant != ''")).await.remove(0)
}

#[tokio::test]
async fn props_are_stored_as_sent_and_every_path_can_be_read() {
    let world = World::new("hostile_props").await;
    let (edge, _aggregator) = tokio::join!(world.edge(), world.aggregator());
    let plain = r#"{"error":true,"error.type":"t","ids":[9007199254740993,0.5],"n":1.50,"z":null,"e":{}}"#;
    let to_mend = r#""big":-9223372036854775809,"half":"\ud800x","twice":1,"twice":{"a":2,"a":3}"#;
    let line = format!(r#"{{"event":"e",{to_mend}, {}"#, &plain[1..]);
    edge.http.post_lines(&[line]).await;
    let stored = async || world.number("SELECT count() FROM events WHERE tenant != ''").await == 1;
    wait_for("the event to be stored", DEADLINE, stored).await.unwrap();
    let mended = r#""big":-9223372036854775809e0,"half":"\ufffdx","twice":{"a":3}"#;
    // ClickHouse answers in TSV, in which it writes two backslashes for one.
    let expected = format!("{{{mended},{}", &plain[1..]).replace('\\', r"\\");
    assert_eq!(extracted(&world, "props").await, [expected]);
    let paths = "JSONExtractString(props, 'error.type'), JSONExtractUInt(props, 'ids', 1), JSONExtractRaw(props, 'n'), \
                 JSONExtractFloat(props, 'big') < -9e18, JSONExtractString(props, 'half'), JSONExtractInt(props, 'twice', 'a')";
    let read = ["t", "9007199254740993", "1.5", "1", "\u{fffd}x", "3"];
    assert_eq!(extracted(&world, paths).await, read);
}

#[tokio::test]
async fn every_line_that_the_edge_accepts_is_stored_once_and_stops_no_partition() {
    let world = World::new("hostile_lines").await;
    let (edge, aggregator) = tokio::join!(world.edge(), world.aggregator());
    let mut rng = fastrand::Rng::with_seed(140);
    let mut accepted = 0;
    for _ in 0..REQUESTS {
        let lines: Vec<_> = repeat_with(|| hostile::line(&mut rng)).take(LINES).collect();
        let good = lines.iter().filter(|line| event::parse::<()>(line).is_ok()).count();
        let report = edge.http.post_lines(&lines).await.json();
        assert_eq!(report["accepted"].as_u64(), Some(good as u64), "{report}");
        accepted += good as u64;
    }

    let admin = Http::new(aggregator.admin());
    let (raw, ledger) = ("SELECT count() FROM events WHERE tenant != ''", "SELECT sum(stored) FROM ledger");
    let stored = wait_for(format!("{accepted} rows in `events` and `ledger`"), DEADLINE, async || {
        world.number(raw).await >= accepted && world.number(ledger).await >= accepted
    });
    if let Err(overdue) = stored.await {
        panic!("{overdue}; the aggregator's readiness is {}", admin.get("/readyz").await.text);
    }
    assert_eq!((world.number(raw).await, world.number(ledger).await), (accepted, accepted));
    assert_eq!(
        world.number("SELECT sum(lines) FROM ledger").await,
        accepted,
        "the ledger has no rejected line and no repeat"
    );
    // A single value that ClickHouse's JSON functions cannot read would hide all other values of its row.
    let unreadable = "SELECT count() FROM events WHERE tenant != '' AND NOT isValidJSON(props)";
    assert_eq!(world.number(unreadable).await, 0);
    assert_eq!(admin.get("/readyz").await.status, 200);
    assert_eq!(
        admin.metric("stream_agg_insert_errors_total").await,
        Some(0),
        "every insert succeeded on the first attempt"
    );
}
