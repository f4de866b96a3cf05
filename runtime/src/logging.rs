//! Logs on standard error: lines for people, JSON for machines.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::vars::{VarError, Vars};

/// What is logged, and in which format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Level of the log, or levels by module: `LOG`, for example `debug` or `info,rdkafka=debug`, default `info`.
    pub filter: String,
    /// Format of the log, on standard error: `LOG_FORMAT`, `text` or `json` (one object per line), default `text`.
    pub format: LogFormat,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines of plain text, for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogConfig {
    /// Reads and checks `LOG` and `LOG_FORMAT`.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let filter = vars.string_or("LOG", "info");
        let invalid =
            |name, value: &str, reason: String| VarError::Invalid { name, value: value.to_owned(), reason };
        EnvFilter::try_new(&filter).map_err(|e| invalid("LOG", &filter, e.to_string()))?;
        let format = match vars.string_or("LOG_FORMAT", "text").as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => return Err(invalid("LOG_FORMAT", other, "it must be `text` or `json`".to_owned())),
        };
        Ok(Self { filter, format })
    }
}

/// Starts logging for the process; later calls change nothing.
pub fn init(config: &LogConfig) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.filter))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    // `try_init` fails if a subscriber is already set, as in a test binary; then the existing subscriber stays.
    let _already_set = match config.format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
}
