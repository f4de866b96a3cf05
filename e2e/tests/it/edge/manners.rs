//! Encodings, idempotency keys, proxies, traces and write keys of requests to the edge.

use std::process::Command;

use devstack::wait_for;
use schemas::trace::TraceParent;
use serde_json::json;
use tokio::task;

use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{DEADLINE, Edge, World};

#[path = "../../../../ingest/tests/geoip/mmdb.rs"]
mod mmdb;

#[tokio::test]
async fn a_body_may_be_compressed_with_zstd() {
    let world = World::new("manners_zstd").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let mut rng = fastrand::Rng::with_seed(21);
    let made: Vec<_> = (0..100).map(|_| TestEvent::random(&mut rng, now())).collect();
    let body = made.iter().map(TestEvent::line).collect::<Vec<_>>().join("\r\n");
    let sent = zstd::encode_all(body.as_bytes(), 3).unwrap();
    let answer = edge.http.send("POST", "/v1/events", &[("content-encoding", "zstd")], sent.clone()).await;
    let mut oracle = Oracle::default();
    oracle.record_report(&answer, &made.into_iter().map(Some).collect::<Vec<_>>());

    let half = sent[..sent.len() / 2].to_vec();
    let answer = edge.http.send("POST", "/v1/events", &[("content-encoding", "zstd")], half).await;
    assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_encoding")));
    let answer = edge.http.send("POST", "/v1/events", &[("content-encoding", "br")], sent).await;
    assert_eq!((answer.status, answer.header("accept-encoding")), (415, "gzip, zstd, identity"));

    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;
}

#[tokio::test]
async fn a_request_repeated_with_its_idempotency_key_counts_once() {
    let world = World::new("manners_repeat").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let mut rng = fastrand::Rng::with_seed(22);
    let mut oracle = Oracle::default();
    for request in ["r1", "r2"] {
        let made: Vec<_> = (0..30).map(|_| TestEvent::random(&mut rng, now())).collect();
        let body = made.iter().map(TestEvent::line).collect::<Vec<_>>().join("\n");
        let send = async || {
            edge.http.send("POST", "/v1/events", &[("idempotency-key", request)], body.clone()).await
        };
        oracle.record_report(&send().await, &made.into_iter().map(Some).collect::<Vec<_>>());
        for _ in 0..3 {
            assert_eq!(send().await.json()["accepted"], 30);
        }
    }
    let answer = edge.http.send("POST", "/v1/events", &[("idempotency-key", "")], "{\"event\":\"a\"}").await;
    assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_idempotency_key")));
    let waited = wait_for("all lines in the ledger", DEADLINE, async || {
        world.number("SELECT sum(lines) FROM ledger").await == 240
    });
    waited.await.unwrap();
    world.assert_counted(&oracle.counts()).await;
    assert_eq!(world.number("SELECT sum(duplicates) FROM ledger").await, 180);
    edge.assert_balanced().await;
}

#[tokio::test]
async fn the_client_address_is_the_one_that_a_trusted_proxy_forwards() {
    let world = World::new("manners_proxy").await;
    let _aggregator = world.aggregator().await;
    let mut service = world.start("ingest", &[("TRUSTED_PROXIES", "127.0.0.0/8, ::1"), ("IP_MODE", "mask")]);
    service.wait_ready().await.unwrap();
    let edge = Edge::new(service);
    let made = TestEvent::random(&mut fastrand::Rng::with_seed(23), now());
    let headers = [("x-forwarded-for", "6.6.6.6, 203.0.113.7:4711, 127.0.0.2")];
    let answer = edge.http.send("POST", "/v1/events", &headers, made.line()).await;
    let mut oracle = Oracle::default();
    oracle.record_report(&answer, &[Some(made)]);
    world.assert_counted(&oracle.counts()).await;
    assert_eq!(world.rows("SELECT ip FROM events WHERE tenant != ''").await, [["::ffff:203.0.113.0"]]);
    assert_eq!(edge.metric("ingest_client_ip_source_total").await, 1);
}

#[tokio::test]
async fn a_country_is_looked_up_by_the_full_address_even_if_only_a_masked_one_is_stored() {
    let world = World::new("manners_country").await;
    let _aggregator = world.aggregator().await;
    let file = world.directory().join("countries.mmdb");
    std::fs::write(&file, mmdb::mmdb(&[("203.0.113.7/32", "DE")])).unwrap();
    let variables =
        [("GEOIP_DB", file.to_str().unwrap()), ("IP_MODE", "mask"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let mut service = world.start("ingest", &variables);
    service.wait_ready().await.unwrap();
    let edge = Edge::new(service);
    for (client, own) in [("203.0.113.7", ""), ("203.0.113.8", ""), ("203.0.113.7", r#","country":"JP""#)] {
        let line = format!(r#"{{"event":"a"{own}}}"#);
        let answer = edge.http.send("POST", "/v1/events", &[("x-forwarded-for", client)], line).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let stored = "SELECT country, ip FROM events WHERE tenant != '' ORDER BY country";
    wait_for("three events", DEADLINE, async || world.rows(stored).await.len() == 3).await.unwrap();
    let ip = "::ffff:203.0.113.0";
    assert_eq!(world.rows(stored).await, [["", ip], ["DE", ip], ["JP", ip]]);
}

#[tokio::test]
async fn refused_requests_are_logged_at_intervals_with_their_trace_but_no_content() {
    let world = World::new("manners_log").await;
    let mut edge = world.edge().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traceparent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [("traceparent", traceparent.as_str()), ("x-request-id", "request-of-the-test")];
    for _ in 0..100 {
        let answer = edge.http.send("POST", "/v1/events?key=secret", &headers, "{\"secret\":").await;
        assert_eq!(answer.json()["code"], "all_lines_invalid");
    }
    let answer = edge.http.send("POST", "/nowhere/secret", &[], "").await;
    assert_eq!(answer.status, 404);
    let log = std::fs::read_to_string(edge.service.process().log()).unwrap();
    let logged: Vec<_> = log.lines().filter(|line| line.contains("all_lines_invalid")).collect();
    assert!(
        (1..=10).contains(&logged.len()),
        "at most one line per ten seconds, and the test takes less than 100 s: {log}"
    );
    for part in
        ["reason=\"all_lines_invalid\"", "status_code=400", "requests=1 ", "request-of-the-test", trace]
    {
        assert!(logged[0].contains(part), "{part}: {}", logged[0]);
    }
    assert!(log.contains("not_found") && !log.contains("secret"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_has_the_trace_id_of_one_of_its_requests() {
    let world = World::new("manners_trace").await;
    let edge = world.edge().await;
    let parent = |trace: &str, flags: &str| format!("00-{trace}-b7ad6b7169203331-{flags}");
    let (recorded, other) = (parent(&"a".repeat(32), "01"), parent(&"b".repeat(32), "00"));
    for trace in [recorded.as_str(), &other, "no such thing"] {
        let answer =
            edge.http.send("POST", "/v1/events", &[("traceparent", trace)], r#"{"event":"a"}"#).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let traces = task::block_in_place(|| world.records()).into_iter().map(|(head, _)| head.trace);
    let named: Vec<_> = traces.flatten().collect();
    assert_eq!(named.iter().map(TraceParent::as_str).collect::<Vec<_>>(), [recorded]);
}

#[tokio::test]
async fn a_write_key_sets_the_tenant_and_a_changed_key_file_needs_no_restart() {
    let world = World::new("manners_keys").await;
    let _aggregator = world.aggregator().await;
    let (acme, other) = (runtime::keys::generate("acme", "acme"), runtime::keys::generate("other", "other"));
    let path = world.write("keys.toml", &acme.1);
    let more = [("AUTH", "required"), ("KEYS_FILE", path.as_str()), ("CORS_ORIGINS", "https://a.example")];
    let mut service = world.start("ingest", &more);
    service.wait_ready().await.unwrap();
    let edge = Edge::new(service);
    let send = async |headers: &[(&str, &str)]| {
        edge.http.send("POST", "/v1/events", headers, "{\"event\":\"a\"}").await
    };
    let page = [("origin", "https://a.example")];
    let answer = send(&page).await;
    assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("no_key")));
    assert_eq!(answer.header("access-control-allow-origin"), "https://a.example");
    assert_eq!(send(&[("x-write-key", &acme.0)]).await.status, 200);
    let answer = send(&[("x-write-key", &other.0)]).await;
    assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("unknown_key")));

    world.write("keys.toml", "[[key]]");
    let bad = wait_for("`ingest_keys_stale` to be 1", DEADLINE, async || {
        edge.metric("ingest_keys_stale").await == 1
    });
    bad.await.unwrap();
    assert_eq!(send(&[("x-write-key", &acme.0)]).await.status, 200);
    world.write("keys.toml", &format!("{}{}", acme.1, other.1));
    let accepted = wait_for("the new key to be accepted", DEADLINE, async || {
        send(&[("x-write-key", &other.0)]).await.status == 200
    });
    accepted.await.unwrap();
    let stored = "SELECT tenant, count() FROM events WHERE tenant != '' GROUP BY tenant ORDER BY tenant";
    let waited = wait_for("both tenants' rows", DEADLINE, async || {
        world.rows(stored).await == [["acme", "2"], ["other", "1"]]
    });
    waited.await.unwrap();
    edge.assert_balanced().await;
}

#[tokio::test]
async fn a_new_key_is_printed_once_with_its_toml_for_the_key_file() {
    let world = World::new("manners_key").await;
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("ingest");
    let made =
        Command::new(program).args(["key", "new", "--id", "web", "--tenant", "acme"]).output().unwrap();
    assert!(made.status.success());
    let printed = String::from_utf8(made.stdout).unwrap();
    let (first, toml) = printed.split_once("\n# Add to KEYS_FILE:\n").unwrap();
    let key = first.rsplit(' ').next().unwrap();
    assert!(key.starts_with("mr_") && !toml.contains(key), "{printed}");

    let file = world.write("keys.toml", toml);
    let mut service = world.start("ingest", &[("AUTH", "required"), ("KEYS_FILE", &file)]);
    service.wait_ready().await.unwrap();
    let (edge, _aggregator) = (Edge::new(service), world.aggregator().await);
    let send = async |headers: &[(&str, &str)]| {
        edge.http.send("POST", "/v1/events", headers, r#"{"event":"a"}"#).await
    };
    assert_eq!(send(&[]).await.json()["code"], "no_key");
    assert_eq!(send(&[("x-write-key", "mr_other")]).await.json()["code"], "unknown_key");
    let bearer = format!("Bearer {key}");
    for headers in [("authorization", bearer.as_str()), ("x-write-key", key)] {
        assert_eq!(send(&[headers]).await.status, 200);
    }
    let stored = async || world.number("SELECT count() FROM events WHERE tenant = 'acme'").await == 2;
    wait_for("both events of the tenant `acme`", DEADLINE, stored).await.unwrap();
}
