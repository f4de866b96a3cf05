//! What a person sees on standard output.
#![expect(clippy::print_stdout, reason = "the page that `./dev up` shows")]

use std::io::{self, Write};
use std::time::Instant;

use super::services::{Addresses, FRONT_PORT};
use crate::clickhouse::BI_READER;
use crate::stack::Stack;

/// One line.
pub(super) fn say(line: &str) {
    println!("{line}");
}

/// A line that takes the place of the last one.
pub(super) fn over(line: &str) {
    print!("\r\x1b[K{line}");
    // A closed standard output is no reason to stop.
    let _closed = io::stdout().flush();
}

/// Runs a step and shows its name and how long it took.
pub(super) async fn timed<T>(step: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    print!("{step} … ");
    // A closed standard output is no reason to stop.
    let _closed = io::stdout().flush();
    let started = Instant::now();
    let outcome = work.await;
    let word = if outcome.is_ok() { "" } else { "failed after " };
    println!("{word}{:.1} s", started.elapsed().as_secs_f64());
    outcome
}

/// Where everything is, and what to try; `bi` is the database of the views.
pub(super) fn ready(stack: &Stack, at: &Addresses, bi: &str, demo: bool) {
    let front = at.front.port();
    let other = if front == FRONT_PORT { "" } else { " (the usual port is taken)" };
    let native =
        stack.clickhouse.native_port().map(|port| format!(", native port {port}")).unwrap_or_default();
    let traffic = if demo { "The demo sends 340 events a second.\n" } else { "" };
    let views = stack
        .clickhouse
        .bi_dsn(BI_READER, bi)
        .map(|dsn| format!("\n  views       {dsn} (HTTP, read only)"))
        .unwrap_or_default();
    println!(
        "
Millrace is ready. Ctrl-C stops it; data and logs stay in {directory}.
{traffic}
  front       http://localhost:{front}{other}
              POST goes to ingest, GET to query-api
  ingest      http://{ingest}    admin http://{ingest_admin}/metrics
  stream-agg                           admin http://{stream_agg}/metrics
  query-api   http://{query}    admin http://{query_admin}/metrics
  Kafka       {kafka}
  ClickHouse  {clickhouse}{native}{views}

Store an event; it answers a report with \"accepted\":1
  curl localhost:{front}/v1/events -d '{{\"event\":\"hello\",\"user_id\":\"me\"}}'
Count a click; it answers 204, once Kafka has it for good
  curl -i -X POST localhost:{front}/analytics/$(date +%s%3N)/me/click
Vote; the answer says how the poll stands, some seconds old
  curl localhost:{front}/v1/votes -d '{{\"poll\":\"best-shoe\",\"option\":\"boot\",\"voter\":\"me\"}}'
Read this hour; it answers unique_users, clicks and impressions, some seconds old
  curl 'localhost:{front}/analytics?timestamp='$(date +%s%3N)
",
        directory = stack.directory.path().display(),
        ingest = at.ingest.0,
        ingest_admin = at.ingest.1,
        stream_agg = at.stream_agg,
        query = at.query_api.0,
        query_admin = at.query_api.1,
        kafka = stack.kafka.brokers(),
        clickhouse = stack.clickhouse.url(),
    );
}
