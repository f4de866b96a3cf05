//! The text that `./dev up` prints once everything is ready.
#![expect(clippy::print_stdout, reason = "standard output is what `./dev up` shows a person")]

use super::services::{Addresses, FRONT_PORT};
use crate::servers::Stack;
use crate::servers::clickhouse::BI_READER;

/// Prints the addresses of all services and servers, and some requests to try. `bi` is the database of the analysts'
/// views.
pub(super) fn print(stack: &Stack, at: &Addresses, bi: &str, demo: bool) {
    let front = at.front.port();
    let other = if front == FRONT_PORT { "" } else { " (the usual port is taken)" };
    let native =
        stack.clickhouse.native_port().map(|port| format!(", native port {port}")).unwrap_or_default();
    let traffic = if demo {
        "The demo first sends two weeks of generated history, then older history: 340 events a second.\n"
    } else {
        ""
    };
    let views = stack
        .clickhouse
        .bi_dsn(BI_READER, bi)
        .map(|dsn| format!("\n  views       {dsn} (HTTP, read only)"))
        .unwrap_or_default();
    println!(
        "
Millrace is ready. Ctrl-C stops it; data and logs stay in {directory}.
{traffic}
  page        http://localhost:{front}/
  front       http://localhost:{front}{other}
              GET and posted queries go to query-api, all other POST requests to ingest
  ingest      http://{ingest}    admin http://{ingest_admin}/metrics
  stream-agg                           admin http://{stream_agg}/metrics
  query-api   http://{query}    admin http://{query_admin}/metrics
  Kafka       {kafka}
  ClickHouse  {clickhouse}{native}{views}

Store an event; the answer is a report with \"accepted\":1
  curl localhost:{front}/v1/events -d '{{\"event\":\"hello\",\"user_id\":\"me\"}}'
Count a click; the answer is 204 once Kafka has stored the click durably
  curl -i -X POST localhost:{front}/analytics/$(date +%s%3N)/me/click
Vote; the answer has the results of the poll, which may be some seconds old
  curl localhost:{front}/v1/votes -d '{{\"poll\":\"best-shoe\",\"option\":\"boot\",\"voter\":\"me\"}}'
Read this hour; the answer has unique_users, clicks and impressions, which may be some seconds old
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
