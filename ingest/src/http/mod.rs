//! HTTP: the layers around every request, the handlers of the routes, and the responses.
//!
//! [`layers::stack`] is the whole edge as a tower service. A response is rendered only in [`response`], and a refusal
//! is logged only in [`refusal_log`].

pub mod layers;

pub mod handlers;

pub mod preferences;

pub mod response;

pub mod refusal_log;

pub mod cors;

use std::sync::Arc;

use runtime::vars::{VarError, Vars};

use self::cors::CorsConfig;
use self::refusal_log::RefusalLog;
use crate::app::App;

/// The limit on concurrent requests, and the web pages that may send requests.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Maximum number of requests at once, including those that wait for Kafka: `MAX_REQUESTS`, default 16 384.
    /// Requests beyond it get `503`.
    pub max_requests: usize,
    /// Which web pages may send requests from a browser.
    pub cors: CorsConfig,
}

impl HttpConfig {
    /// Reads and checks the environment variables of the fields above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        Ok(Self { max_requests: vars.parsed_or("MAX_REQUESTS", 16_384)?, cors: CorsConfig::from_vars(vars)? })
    }
}

/// What the layers share: the app, and what only HTTP needs.
pub struct HttpState {
    app: Arc<App>,
    max_requests: usize,
    cors: CorsConfig,
    refusal_log: RefusalLog,
}

impl HttpState {
    /// Combines the app with the configuration of HTTP and a new log of refused requests.
    pub fn new(config: HttpConfig, app: Arc<App>) -> Self {
        let HttpConfig { max_requests, cors } = config;
        Self { app, max_requests, cors, refusal_log: RefusalLog::default() }
    }
}
