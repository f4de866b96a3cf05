//! `/openapi.json` is valid OpenAPI, and the answers to all kinds of requests conform to it.

use std::process::Command;

use devstack::{python, wait_for};
use runtime::keys::generate;
use runtime::vars::Vars;
use serde_json::json;

use crate::client::Http;
use crate::world::{DEADLINE, World};

#[tokio::test]
async fn every_answer_conforms_to_the_openapi_document() {
    let world = World::new("openapi").await;
    let (token, keys) = generate("schemathesis", "default");
    let file = world.write("read-keys.toml", &keys);
    let more = [("READ_AUTH", "required"), ("READ_KEYS_FILE", file.as_str())];
    let (edge, _aggregator) = tokio::join!(world.edge(), world.aggregator());
    let mut service = world.start("query-api", &more);
    service.wait_ready().await.unwrap();
    let line = json!({"event": "view", "country": "DE", "user_id": "ann", "poll": "shoe"}).to_string();
    edge.http.post_lines(&[line]).await;
    let http = Http::new(service.http());
    let bearer = format!("Bearer {token}");
    let counted = wait_for("the event in `/v1/counters`", DEADLINE, async || {
        let answer = http.send("GET", "/v1/counters", &[("authorization", &bearer)], "").await;
        answer.text.contains("\"DE\"")
    });
    counted.await.unwrap();

    let python = python::find(&Vars::from_env()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/check.py");
    let output = Command::new(python)
        .args([script, &service.http(), &token])
        .current_dir(world.directory())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}", said.concat());
}
