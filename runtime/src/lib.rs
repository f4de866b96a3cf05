//! What all processes of Millrace have in common: environment variables, reloaded files, client keys, logs, signals,
//! metrics, the HTTP server, error responses, request ids, the admin port, retries, the limit on open files, the needs
//! that `--check-config` shows, and what every `main` does.
//!
//! This crate knows nothing about events, Kafka or ClickHouse.

pub mod vars;

pub mod follow;

pub mod keys;

pub mod logging;

pub mod error;

pub mod signal;

pub mod serve;

pub mod metrics;

pub mod admin;

pub mod backoff;

pub mod problem;

pub mod request_id;

pub mod descriptors;

pub mod needs;

pub mod process;
