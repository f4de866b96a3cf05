//! Fetches the results of the polls from query-api at an interval; the only I/O of this folder.
//!
//! Invariant: whatever query-api does, the last results stay in use, with their age. A request takes no longer than the
//! interval, and a response is no longer than `MAX_RESPONSE_BYTES`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use reqwest::Client;
use runtime::error::chain;
use runtime::vars::{VarError, Vars};
use tokio::time;

use super::results::{Results, ResultsError};
use crate::metrics::Metrics;

/// The longest response that is read. Query-api returns some tens of thousands of options at most.
const MAX_RESPONSE_BYTES: usize = 16 << 20;
/// The longest time that a request may take, even if the interval is longer.
const DEADLINE: Duration = Duration::from_secs(10);

/// For this long after the start a failure is not logged, because query-api may be starting at the same time.
const GRACE: Duration = Duration::from_secs(30);

/// The results that were last fetched; none before the first fetch.
pub type LatestResults = Arc<ArcSwapOption<Results>>;

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// There was no response, or one without success.
    #[error("fetch the polls' results")]
    Fetch(#[from] reqwest::Error),
    /// There was no response in time.
    #[error("fetch the polls' results in time")]
    Deadline(#[from] time::error::Elapsed),
    /// The response is longer than `MAX_RESPONSE_BYTES`.
    #[error("fetch the polls' results: the response is longer than {MAX_RESPONSE_BYTES} bytes")]
    TooLarge,
    /// The response contains no results.
    #[error(transparent)]
    Results(#[from] ResultsError),
}

/// Where the results of the polls come from.
#[derive(Debug, Clone)]
pub struct PollResultsConfig {
    /// The address of query-api, `http://…`: `POLL_RESULTS_URL`, default none, and then responses to votes contain
    /// no results.
    pub url: Option<String>,
    /// The time between two fetches, ±10 %: `POLL_RESULTS_INTERVAL`, default 5s.
    pub interval: Duration,
}

impl PollResultsConfig {
    /// Reads and checks the variables above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let url = vars.string_or("POLL_RESULTS_URL", "");
        let interval = vars.positive_duration_or("POLL_RESULTS_INTERVAL", Duration::from_secs(5))?;
        if !url.is_empty() && !reqwest::Url::parse(&url).is_ok_and(|url| url.scheme() == "http") {
            let reason =
                "it must be the address of query-api, for example `http://localhost:8083`".to_owned();
            return Err(VarError::Invalid { name: "POLL_RESULTS_URL", value: url, reason });
        }
        Ok(Self { url: Some(url).filter(|url| !url.is_empty()), interval })
    }
}

/// Fetches the results from query-api at `url` about every `interval`, until the future is cancelled.
pub async fn run(url: String, interval: Duration, latest: LatestResults, metrics: Arc<Metrics>) {
    // Only the address counts: the proxy variables of the environment are ignored.
    let client = Client::builder().no_proxy().build().expect("a client without TLS needs nothing");
    let url = format!("{}/v1/polls", url.trim_end_matches('/'));
    let (mut succeeded, begun) = (None, time::Instant::now());
    loop {
        let started = time::Instant::now();
        let fetched = match time::timeout(DEADLINE.min(interval), fetch(&client, &url)).await {
            Ok(fetched) => fetched,
            Err(late) => Err(late.into()),
        };
        // A change is logged once, not each attempt.
        let is_starting = succeeded.is_none() && fetched.is_err() && begun.elapsed() < GRACE;
        let changed = !is_starting && succeeded.replace(fetched.is_ok()) != Some(fetched.is_ok());
        metrics.poll_results(fetched.as_ref().ok().map(|results| results.as_of));
        match fetched {
            Ok(results) => {
                latest.store(Some(Arc::new(results)));
                if changed {
                    tracing::info!(url, "fetched the polls' results");
                }
            }
            Err(error) if changed => {
                let error = chain(&error);
                tracing::warn!(
                    url,
                    error,
                    "cannot fetch the polls' results; the last ones stay in use, trying again"
                );
            }
            Err(_) => {}
        }
        // Jitter keeps many instances from fetching at the same time.
        let pause = interval.mul_f64(0.9 + fastrand::f64() / 5.0);
        time::sleep(pause.saturating_sub(started.elapsed())).await;
    }
}

async fn fetch(client: &Client, url: &str) -> Result<Results, RefreshError> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
            return Err(RefreshError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Results::parse(&body)?)
}
