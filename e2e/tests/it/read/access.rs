//! The key of a reader sets the reader's tenant, measures, filter and rate.

use std::collections::BTreeSet;
use std::fs;

use devstack::wait_for;
use runtime::keys::generate;
use serde_json::{Value, json};

use crate::client::{Http, HttpResponse};
use crate::world::{DEADLINE, Edge, QueryApi, World};

/// The `Authorization` header with a new token, and the TOML declaration of its key with the additional lines `more`.
fn key(id: &str, tenant: &str, more: &str) -> (String, String) {
    let (token, toml) = generate(id, tenant);
    (format!("Bearer {token}"), format!("{toml}{more}\n"))
}

async fn get(http: &Http, path: &str, bearer: &str) -> HttpResponse {
    http.send("GET", path, &[("authorization", bearer)], "").await
}

/// A query API with these keys.
async fn query_api(world: &World, keys: String) -> QueryApi {
    let file = world.write("read-keys.toml", &keys);
    let more = [("READ_AUTH", "required"), ("READ_KEYS_FILE", file.as_str())];
    let mut service = world.start("query-api", &more);
    service.wait_ready().await.unwrap();
    QueryApi::new(service)
}

/// An edge with these keys and `more` variables.
async fn edge(world: &World, keys: String, more: &[(&str, &str)]) -> Edge {
    let file = world.write("write-keys.toml", &keys);
    let own = [("AUTH", "required"), ("KEYS_FILE", file.as_str())];
    let mut service = world.start("ingest", &[&own[..], more].concat());
    service.wait_ready().await.unwrap();
    Edge::new(service)
}

async fn post(edge: &Edge, path: &str, bearer: &str, lines: &[Value]) -> HttpResponse {
    let body: Vec<_> = lines.iter().map(Value::to_string).collect();
    let answer = edge.http.send("POST", path, &[("authorization", bearer)], body.join("\n")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer
}

/// A time window that contains the events of [`event`].
const WINDOW: &str = "from=2025-11-15&to=2025-11-18";

fn event(name: &str, country: &str) -> Value {
    json!({"event": name, "country": country, "user_id": "ann", "client_time": "2025-11-16T12:00:00Z"})
}

#[tokio::test]
async fn two_tenants_with_the_same_query_never_see_each_others_rows() {
    let world = World::new("access_tenants").await;
    let [(acme_w, acme_wk), (other_w, other_wk)] = [key("acme", "acme", ""), key("other", "other", "")];
    let [(acme, acme_k), (other, other_k)] = [key("acme", "acme", ""), key("other", "other", "")];
    let (part, part_k) = key("part", "acme", "filter = [\"country:in:DE\"]");
    let (nobody, nobody_k) = key("nobody", "nobody", "");
    let (edge, api, _aggregator) = tokio::join!(
        edge(&world, acme_wk + &other_wk, &[]),
        query_api(&world, [acme_k, other_k, part_k, nobody_k].concat()),
        world.aggregator(),
    );
    let http = &api.http;
    let of_acme = [event("of-acme", "DE"), event("of-acme-too", "FR"), event("view", "AC")];
    post(&edge, "/v1/events", &acme_w, &of_acme).await;
    post(&edge, "/v1/votes", &acme_w, &[json!({"poll": "shoe", "option": "of-acme"})]).await;
    post(&edge, "/v1/events", &other_w, &[event("of-other", "DE"), event("of-other-too", "FR")]).await;

    // The names of the events in the answer to a query. Below, the four readers send the same query at the same time,
    // and again when the answers are cached.
    let events = async |bearer: &str, parameters: &str| {
        let answer = get(http, &format!("/v1/query?dimensions=event&{WINDOW}{parameters}"), bearer).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let data = answer.json()["data"].take();
        let name = |row: &Value| row["event"].as_str().unwrap().to_owned();
        data.as_array().unwrap().iter().map(name).collect::<BTreeSet<_>>()
    };
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let counted = wait_for("the events of both tenants", DEADLINE, async || {
        events(&acme, "").await.len() == 3 && events(&other, "").await.len() == 2
    });
    counted.await.unwrap();
    for _ in 0..20 {
        let (of_acme, of_part, of_other, of_nobody) =
            tokio::join!(events(&acme, ""), events(&part, ""), events(&other, ""), events(&nobody, ""));
        assert_eq!(of_acme, all(&["of-acme", "of-acme-too", "view"]));
        assert_eq!(of_part, all(&["of-acme"]));
        assert_eq!(of_other, all(&["of-other", "of-other-too"]));
        assert_eq!(of_nobody, all(&[]));
    }
    // The filter in a query can only narrow the rows that the key permits.
    assert_eq!(events(&part, "&filter=country:eq:FR").await, all(&[]));
    assert_eq!(events(&part, "&filter=country:in:DE%7CFR").await, all(&["of-acme"]));
    let users = get(http, &format!("/v1/query?measures=users&{WINDOW}"), &part).await;
    assert_eq!((users.status, users.problem()), (422, "not_covered".to_owned()));
    assert_eq!(users.json()["errors"][0]["param"], "filter");

    // A reader that sends the ETag or the cursor of another reader gets no rows of that reader's tenant.
    let path = format!("/v1/query?dimensions=event&order=event:asc&limit=1&{WINDOW}");
    let page = get(http, &path, &acme).await;
    let known = [("authorization", other.as_str()), ("if-none-match", page.header("etag"))];
    let answer = http.send("GET", &path, &known, "").await;
    assert_eq!((answer.status, &answer.json()["data"]), (200, &json!([{"event": "of-other", "events": 1}])));
    assert_eq!(answer.header("cache-control").split(',').next(), Some("private"));
    let next = page.json()["meta"]["next"].as_str().unwrap().to_owned();
    let rest = get(http, &format!("{path}&cursor={next}"), &other).await;
    assert!(!rest.text.contains("\"of-acme"), "{}", rest.text);
    for form in ["csv", "ndjson", "json"] {
        let answer = get(http, &format!("/v1/query.{form}?dimensions=event&{WINDOW}"), &other).await;
        assert!(answer.text.contains("of-other") && !answer.text.contains("of-acme"), "{}", answer.text);
    }
    let body = json!({"dimensions": ["event"], "from": "2025-11-15", "to": "2025-11-18"}).to_string();
    let posted = http.send("POST", "/v1/query", &[("authorization", other.as_str())], body).await;
    assert!(posted.text.contains("of-other") && !posted.text.contains("of-acme"), "{}", posted.text);

    // The query API prepares the answers of these paths once for all readers of a tenant and cannot apply the filter of
    // a key to them. So it refuses them to a reader whose key has a filter.
    for path in [
        "/analytics?timestamp=1763294400000",
        "/v1/counters",
        "/web/get.php?format=csv",
        "/v1/polls",
        "/v1/polls/shoe",
    ] {
        for bearer in [&other, &nobody] {
            let answer = get(http, path, bearer).await;
            let shows = ["of-acme", "\"AC\"", "AC,"].iter().any(|text| answer.text.contains(text));
            let users = answer.text.contains("unique_users") && !answer.text.contains("unique_users,0\n");
            assert!(!shows && !users, "{path}: {}", answer.text);
        }
        let refused = get(http, path, &part).await;
        assert_eq!((refused.status, refused.problem()), (403, "forbidden".to_owned()), "{path}");
    }
    let meta = get(http, "/v1/meta", &part).await.json();
    assert_eq!((&meta["key"]["tenant"], &meta["key"]["filter"]), (&json!("acme"), &json!(["country:in:DE"])));
}

#[tokio::test]
async fn a_key_above_its_rate_is_refused_and_other_keys_are_not() {
    let world = World::new("access_rates").await;
    let rates = "queries_per_second = 2\nanswers_per_second = 2";
    let [(a, a_k), (b, b_k)] = [key("a", "default", rates), key("b", "default", rates)];
    let (api, _aggregator) = tokio::join!(query_api(&world, a_k + &b_k), world.aggregator());
    let http = &api.http;
    for path in ["/v1/query", "/v1/counters"] {
        let mut statuses = Vec::new();
        let mut refused = None;
        for _ in 0..50 {
            let answer = get(http, path, &a).await;
            statuses.push(answer.status);
            if answer.status == 429 {
                refused = Some(answer);
            }
        }
        let refused = refused.unwrap_or_else(|| panic!("{path}: no request got status 429: {statuses:?}"));
        assert_eq!(refused.problem(), "rate_limited");
        assert_eq!((statuses[0], refused.header("retry-after")), (200, "1"));
        assert!(refused.header("ratelimit").contains(";r=0;t=1"), "{}", refused.header("ratelimit"));
        assert!(refused.header("ratelimit-policy").contains(";q=2;w=1"));
        assert_eq!(get(http, path, &b).await.status, 200);
    }
}

#[tokio::test]
async fn a_changed_read_key_file_takes_effect_without_a_restart() {
    let world = World::new("access_reload").await;
    let [(old, old_k), (new, new_k)] = [key("old", "default", ""), key("new", "default", "")];
    let file = world.write("read-keys.toml", &old_k);
    let more = [("READ_AUTH", "required"), ("READ_KEYS_FILE", file.as_str())];
    let mut service = world.start("query-api", &more);
    service.wait_ready().await.unwrap();
    let (http, admin) = (Http::new(service.http()), Http::new(service.admin()));
    let status = async |bearer: &str| get(&http, "/v1/meta", bearer).await.status;
    assert_eq!((status(&old).await, status(&new).await), (200, 401));

    fs::write(&file, "[[key]]\nid = \"new\"").unwrap();
    let stale = async || admin.metric("query_api_keys_stale").await == Some(1);
    wait_for("the metric to report the bad file", DEADLINE, stale).await.unwrap();
    assert_eq!((status(&old).await, status(&new).await), (200, 401));

    fs::write(&file, format!("{old_k}enabled = false\n{new_k}")).unwrap();
    wait_for("the new key", DEADLINE, async || status(&new).await == 200).await.unwrap();
    assert_eq!(status(&old).await, 401);
    assert_eq!(admin.metric("query_api_keys_stale").await, Some(0));
    let refused = get(&http, "/v1/query", &old).await;
    assert_eq!(refused.problem(), "unauthorized");
    assert!(refused.header("www-authenticate").starts_with("Bearer"));
}

#[tokio::test]
async fn the_edge_returns_poll_results_only_for_the_tenant_of_its_token() {
    let world = World::new("access_votes").await;
    let [(mine_w, mine_wk), (other_w, other_wk)] = [key("mine", "default", ""), key("other", "other", "")];
    let (reader, reader_k) = key("edge", "default", "");
    let (api, _aggregator) = tokio::join!(query_api(&world, reader_k), world.aggregator());
    let token = reader.trim_start_matches("Bearer ");
    let token = world.write("token", &format!("{token}\n"));
    let url = api.address();
    let more = [
        ("POLL_RESULTS_URL", url.as_str()),
        ("POLL_RESULTS_TOKEN_FILE", token.as_str()),
        ("POLL_RESULTS_INTERVAL", "300ms"),
    ];
    let edge = edge(&world, mine_wk + &other_wk, &more).await;
    let vote = [json!({"poll": "shoe", "option": "a", "voter": "ann"})];
    let shown = wait_for("the result of the poll", DEADLINE, async || {
        post(&edge, "/v1/votes", &mine_w, &vote).await.json()["poll"]["results"][0]["votes"].as_u64()
            > Some(0)
    });
    shown.await.unwrap();
    let answer = post(&edge, "/v1/votes", &other_w, &vote).await;
    assert_eq!(answer.json().get("poll"), Some(&Value::Null), "{}", answer.text);
}
