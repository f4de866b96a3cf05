//! How each of our processes runs: its variables, the files that it reloads, keys of its clients, logs, signals,
//! metrics, HTTP server and admin port, how it retries, and how it reports errors.
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
