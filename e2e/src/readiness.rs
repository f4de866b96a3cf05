//! Waits until a service gives an expected answer at `/readyz`.

use std::time::Duration;

use devstack::{Service, wait_for};

use crate::client::Http;
use crate::world::DEADLINE;

/// Waits until the readiness text of `service` contains all of these words.
pub async fn wait_for_readyz(service: &Service, words: &[&str]) {
    wait_for_readyz_within(service, words, DEADLINE).await;
}

/// Like [`wait_for_readyz`], with another deadline. Returns the readiness text.
pub async fn wait_for_readyz_within(service: &Service, words: &[&str], deadline: Duration) -> String {
    let admin = Http::new(service.admin());
    let mut seen = String::new();
    let waited = wait_for(format!("{}/readyz to name {words:?}", admin.base()), deadline, async || {
        if let Ok(answer) = admin.try_send("GET", "/readyz", &[], "").await {
            seen = answer.text;
        }
        words.iter().all(|word| seen.contains(word))
    });
    if let Err(overdue) = waited.await {
        panic!("{overdue}; the last answer is {seen:?}");
    }
    seen
}

/// Waits until `service` is not ready and its readiness text, converted to lower case, contains `what`. Then checks
/// that the service is alive.
pub async fn wait_until_not_ready(service: &Service, what: &str) {
    let admin = Http::new(service.admin());
    let mut last = String::new();
    let expected = format!("{}/readyz to answer 503 with {what:?}", admin.base());
    let waited = wait_for(expected, DEADLINE, async || {
        let Ok(answer) = admin.try_send("GET", "/readyz", &[], "").await else { return false };
        last = answer.text.to_lowercase();
        answer.status == 503 && last.contains(what)
    });
    if let Err(overdue) = waited.await {
        panic!("{overdue}; the last answer, in lower case, is {last:?}");
    }
    assert_eq!(admin.get("/healthz").await.status, 200);
}
