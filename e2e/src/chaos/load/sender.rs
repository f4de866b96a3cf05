//! Sends the load at a steady rate, with a bounded number of concurrent requests. Sends every request again if it did
//! not reach the edge, and otherwise only requests that may be retried.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::journal::{self, Outcome, SharedJournal};
use super::requests::Request;
use crate::chaos::observe::{Clock, RunStats};
use crate::client::{Http, HttpResponse};
use crate::oracle::now;

/// Requests a second on average. After an outage, the sender sends faster until all delayed requests are sent.
const RATE: u32 = 200;
/// Maximum number of concurrent requests. While this many are unanswered, no other request is sent.
const AT_ONCE: usize = 32;
/// Timeout of a request. It is longer than any pause of the edge, which is at most 20 s, and longer than the edge waits
/// for Kafka before it answers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// Pause between two attempts of a request.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Sends requests to the edge and records their outcomes.
#[derive(Clone)]
pub(crate) struct Sender {
    http: Arc<Http>,
    journal: SharedJournal,
    stats: Arc<RunStats>,
    /// Once cancelled, no request is retried.
    give_up: CancellationToken,
}

impl Sender {
    pub(crate) fn new(base: String, journal: &SharedJournal, stats: &Arc<RunStats>) -> Self {
        Self {
            http: Arc::new(Http::with_timeout(base, REQUEST_TIMEOUT)),
            journal: Arc::clone(journal),
            stats: Arc::clone(stats),
            give_up: CancellationToken::new(),
        }
    }

    /// Makes and sends requests until `clock` shows `length`. Then waits up to `grace` for the outcomes of the open
    /// requests; a request without an outcome stays unanswered.
    pub(crate) async fn send(self, clock: &Clock, length: Duration, grace: Duration) {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut under_way = JoinSet::new();
        let mut sent = 0;
        let sending = async {
            loop {
                clock.wait_until(Duration::from_secs(1) / RATE * sent).await;
                sent += 1;
                let permit =
                    Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
                let (sender, request) = (self.clone(), journal::lock(&self.journal).next(now()));
                under_way.spawn(async move {
                    let outcome = sender.send_until_answered(&request).await;
                    journal::lock(&sender.journal).record(request.number, outcome);
                    drop(permit);
                });
                while under_way.try_join_next().is_some() {}
            }
        };
        tokio::select! {
            () = sending => {}
            () = clock.wait_until(length) => {}
        }
        let all = async { while under_way.join_next().await.is_some() {} };
        // The journal keeps requests that are still open as unanswered.
        let _late = time::timeout(grace, all).await;
        self.give_up.cancel();
        under_way.shutdown().await;
    }

    async fn send_until_answered(&self, request: &Request) -> Outcome {
        // If one attempt may have stored the request, only an acknowledgement of a later attempt settles the outcome: a
        // later refusal says nothing about the earlier attempt.
        let mut outcome = Outcome::Refused;
        while !self.give_up.is_cancelled() {
            match send_once(&self.http, request, &self.stats).await {
                Try::Acked => return Outcome::Acked,
                Try::Refused => return outcome,
                Try::NotNow => {}
                Try::Unknown if request.repeatable => outcome = Outcome::Unanswered,
                Try::Unknown => return Outcome::Unanswered,
            }
            time::sleep(RETRY_PAUSE).await;
        }
        outcome
    }
}

/// The result of one attempt to send a request.
enum Try {
    Acked,
    /// The edge stored no line of the request, and the request is not sent again.
    Refused,
    /// The edge stored no line of the request, but may accept it later.
    NotNow,
    /// It is unknown whether the edge stored the request. It stored either all good lines or none.
    Unknown,
}

async fn send_once(http: &Http, request: &Request, stats: &RunStats) -> Try {
    let headers: &[_] =
        if request.body.is_empty() { &[] } else { &[("content-type", "application/x-ndjson")] };
    match http.try_send("POST", &request.path, headers, request.body.as_bytes()).await {
        Ok(answer) => judge(&answer, request).unwrap_or_else(|| {
            stats.problem(format!(
                "request {} got an answer that the edge must not give: {} {}",
                request.number, answer.status, answer.text
            ));
            Try::Unknown
        }),
        // The request did not reach the edge.
        Err(error) if error.is_connect() => Try::NotNow,
        Err(_) => Try::Unknown,
    }
}

/// The result that an answer reports; `None` if the edge must not give this answer.
fn judge(answer: &HttpResponse, request: &Request) -> Option<Try> {
    let json = answer.json();
    let number = |name: &str| json[name].as_u64();
    let (events, bad) = (request.events.len() as u64, request.bad as u64);
    match (answer.status, json["code"].as_str()) {
        (200, None)
            if events > 0 && (number("accepted"), number("rejected")) == (Some(events), Some(bad)) =>
        {
            Some(Try::Acked)
        }
        (204, None) if request.body.is_empty() => Some(Try::Acked),
        (400, Some("all_lines_invalid")) if events == 0 => Some(Try::Refused),
        (503, Some("overloaded")) => Some(if request.repeatable { Try::NotNow } else { Try::Refused }),
        (503, Some("not_durable")) => Some(Try::Unknown),
        _ => None,
    }
}
