//! Fetches poll results from query-api at an interval. No other file of this folder does I/O.
//!
//! Invariants: if a fetch fails, the results of the last successful fetch stay in use, and responses to votes show how
//! old they are. All results belong to one tenant, which query-api names in its response to `/v1/meta`. A fetch fails
//! if it takes longer than `DEADLINE` or the interval, or if a response is longer than `MAX_RESPONSE_BYTES`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use arc_swap::ArcSwapOption;
use reqwest::{Client, header};
use runtime::error::chain;
use runtime::vars::{VarError, Vars};
use tokio::{task, time};

use super::results::{Results, ResultsError};
use crate::metrics::Metrics;

/// The length of the longest response that is read. Query-api returns at most some tens of thousands of options.
const MAX_RESPONSE_BYTES: usize = 16 << 20;
/// The time limit of a fetch, which consists of two requests. If the interval is shorter, the interval is the limit.
const DEADLINE: Duration = Duration::from_secs(10);

/// For this long after the start, failures before the first successful fetch are not logged, because query-api may be
/// starting at the same time.
const STARTUP_GRACE: Duration = Duration::from_secs(30);

/// The results of the last successful fetch; `None` until a fetch has succeeded.
pub type LatestResults = Arc<ArcSwapOption<Results>>;

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The token cannot be read.
    #[error("read the token of POLL_RESULTS_TOKEN_FILE")]
    Token(#[from] io::Error),
    /// A request failed, or the status of its response is not a success.
    #[error("fetch poll results")]
    Fetch(#[from] reqwest::Error),
    /// The fetch did not end in time.
    #[error("timed out fetching poll results")]
    Deadline(#[from] time::error::Elapsed),
    /// The response is longer than `MAX_RESPONSE_BYTES`.
    #[error("fetch poll results: the response is longer than {MAX_RESPONSE_BYTES} bytes")]
    TooLarge,
    /// The responses do not contain usable results.
    #[error(transparent)]
    Results(#[from] ResultsError),
}

/// Where the edge fetches poll results, and how often.
#[derive(Debug, Clone)]
pub struct PollResultsConfig {
    /// Address of the query API, where the edge fetches results of polls: `POLL_RESULTS_URL`, `http://host:port`,
    /// default none. Without it the answer to a vote has `"poll":null`.
    pub url: Option<String>,
    /// Path of a file with the token of a key of the query API: `POLL_RESULTS_TOKEN_FILE`, default none. Needed if the
    /// query API has `READ_AUTH=required`. It is read again before each fetch. Only votes of this key's tenant get
    /// results.
    pub token_file: Option<PathBuf>,
    /// Time between two fetches of poll results, ±10 %: `POLL_RESULTS_INTERVAL`, default 5s. While fetches succeed, the
    /// results in answers to votes are at most about one interval older than the query API's.
    pub interval: Duration,
}

impl PollResultsConfig {
    /// Reads and checks the variables above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let url = vars.string_or("POLL_RESULTS_URL", "");
        let interval = vars.positive_duration_or("POLL_RESULTS_INTERVAL", Duration::from_secs(5))?;
        if !url.is_empty() && !reqwest::Url::parse(&url).is_ok_and(|url| url.scheme() == "http") {
            let reason = "it must be the `http://` address of query-api, for example `http://localhost:8083`"
                .to_owned();
            return Err(VarError::Invalid { name: "POLL_RESULTS_URL", value: url, reason });
        }
        let token_file = vars.file("POLL_RESULTS_TOKEN_FILE", |path, text| match text.trim() {
            "" => Err("the file contains no token"),
            _ => Ok(PathBuf::from(path)),
        })?;
        Ok(Self { url: Some(url).filter(|url| !url.is_empty()), token_file, interval })
    }
}

/// The query-api from which results are fetched.
struct Source {
    client: Client,
    /// The address, without a slash at the end.
    url: String,
    token_file: Option<PathBuf>,
}

/// Fetches the results from query-api at `url` about every `interval`, until the future is dropped.
pub async fn run(
    url: String,
    token_file: Option<PathBuf>,
    interval: Duration,
    latest: LatestResults,
    metrics: Arc<Metrics>,
) {
    // The proxy variables of the environment are ignored, so that query-api is always called directly.
    let client = Client::builder().no_proxy().build().expect("a client without TLS can always be built");
    let source = Source { client, url: url.trim_end_matches('/').to_owned(), token_file };
    let (mut succeeded, begun) = (None, time::Instant::now());
    loop {
        let started = time::Instant::now();
        let fetched = match time::timeout(DEADLINE.min(interval), source.fetch()).await {
            Ok(fetched) => fetched,
            Err(late) => Err(late.into()),
        };
        // Log a fetch only if its outcome differs from that of the previous fetch.
        let is_starting = succeeded.is_none() && fetched.is_err() && begun.elapsed() < STARTUP_GRACE;
        let changed = !is_starting && succeeded.replace(fetched.is_ok()) != Some(fetched.is_ok());
        metrics.poll_results(fetched.as_ref().ok().map(|results| results.as_of));
        match fetched {
            Ok(results) => {
                latest.store(Some(Arc::new(results)));
                if changed {
                    tracing::info!(url = source.url, "fetched poll results");
                }
            }
            Err(error) if changed => {
                let error = chain(&error);
                tracing::warn!(
                    url = source.url,
                    error,
                    "cannot fetch poll results; trying again; results that were fetched before stay in use"
                );
            }
            Err(_) => {}
        }
        // With jitter, the edges do not all fetch at the same time.
        let pause = interval.mul_f64(0.9 + fastrand::f64() / 5.0);
        time::sleep(pause.saturating_sub(started.elapsed())).await;
    }
}

impl Source {
    async fn fetch(&self) -> Result<Results, RefreshError> {
        let token = match self.token_file.clone() {
            Some(file) => {
                Some(task::spawn_blocking(move || read_token(&file)).await.map_err(io::Error::other)??)
            }
            None => None,
        };
        let meta = self.get("/v1/meta", token.as_deref()).await?;
        let polls = self.get("/v1/polls", token.as_deref()).await?;
        Ok(Results::parse(&meta, &polls)?)
    }

    async fn get(&self, path: &str, token: Option<&str>) -> Result<Vec<u8>, RefreshError> {
        let mut request = self.client.get(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let mut response = request.send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
                return Err(RefreshError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn read_token(file: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(file)?.trim().to_owned())
}
