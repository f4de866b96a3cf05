//! Whatever JSON the edge accepts is stored: a line that ClickHouse refused would stop its partition.

use std::iter::repeat_with;

use devstack::wait_for;
use schemas::event;

use crate::client::Http;
use crate::hostile;
use crate::world::{DEADLINE, World};

/// Requests, and lines of each.
const REQUESTS: usize = 16;
const LINES: usize = 250;

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
    let stored = wait_for(format!("{accepted} rows in both tables"), DEADLINE, async || {
        world.number(raw).await >= accepted && world.number(ledger).await >= accepted
    });
    if let Err(overdue) = stored.await {
        panic!("{overdue}; the aggregator says {}", admin.get("/readyz").await.text);
    }
    assert_eq!((world.number(raw).await, world.number(ledger).await), (accepted, accepted));
    assert_eq!(world.number("SELECT sum(lines) FROM ledger").await, accepted, "none rejected, none a repeat");
    assert_eq!(admin.get("/readyz").await.status, 200);
    assert_eq!(admin.metric("stream_agg_insert_errors_total").await, Some(0), "each at the first try");
}
