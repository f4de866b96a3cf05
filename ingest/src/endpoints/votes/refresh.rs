//! Fetches the polls' results from query-api, again and again; the only file that asks anybody.
//!
//! Invariant: whatever query-api does, the last good results stay, with their age. Bounded: the
//! time of a request, by the time between two; the answer, by [`MAX_ANSWER_BYTES`].

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use reqwest::Client;
use runtime::error::chain;
use tokio::time;

use super::results::{Results, Unusable};
use crate::metrics::Metrics;

/// Longest answer that is read. Query-api shows at most some tens of thousands of options.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Longest a request may take, however rarely results are fetched.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long after the start failures are no news: the query API starts at the same time.
const GRACE: Duration = Duration::from_secs(30);

/// The results that were fetched last.
pub type Latest = Arc<ArcSwapOption<Results>>;

/// Why a time brought no results.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// No answer, or none with success.
    #[error("fetch the polls' results")]
    Fetch(#[from] reqwest::Error),
    /// None in time.
    #[error("fetch the polls' results in time")]
    Deadline(#[from] time::error::Elapsed),
    /// Longer than [`MAX_ANSWER_BYTES`].
    #[error("fetch the polls' results: the answer is longer than {MAX_ANSWER_BYTES} bytes")]
    TooLarge,
    /// Not what query-api sends.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

/// Fetches from query-api at `url` about every `interval`, until it is cancelled.
pub async fn run(url: String, interval: Duration, latest: Latest, metrics: Arc<Metrics>) {
    // Its address is all that it is told: no proxy from the environment.
    let client = Client::builder().no_proxy().build().expect("a client without TLS needs nothing");
    let url = format!("{}/v1/polls", url.trim_end_matches('/'));
    let (mut succeeded, begun) = (None, time::Instant::now());
    loop {
        let started = time::Instant::now();
        let fetched = match time::timeout(DEADLINE.min(interval), fetch(&client, &url)).await {
            Ok(fetched) => fetched,
            Err(late) => Err(late.into()),
        };
        // Said once per change, not once per request.
        let is_starting = succeeded.is_none() && fetched.is_err() && begun.elapsed() < GRACE;
        let changed = !is_starting && succeeded.replace(fetched.is_ok()) != Some(fetched.is_ok());
        metrics.poll_results(fetched.as_ref().ok().map(|results| results.as_of));
        match fetched {
            Ok(results) => {
                latest.store(Some(Arc::new(results)));
                if changed {
                    tracing::info!(url, "the polls' results are fetched");
                }
            }
            Err(error) if changed => {
                let error = chain(&error);
                tracing::warn!(url, error, "the polls' results are not updated, trying again");
            }
            Err(_) => {}
        }
        // Jitter keeps many instances from asking in step.
        let pause = interval.mul_f64(0.9 + fastrand::f64() / 5.0);
        time::sleep(pause.saturating_sub(started.elapsed())).await;
    }
}

async fn fetch(client: &Client, url: &str) -> Result<Results, RefreshError> {
    let mut answer = client.get(url).send().await?.error_for_status()?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(RefreshError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Results::parse(&body)?)
}
