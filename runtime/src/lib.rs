//! How any of our processes runs: its variables, the files it follows, its
//! logs, signals, listeners and admin port, how it waits before it tries again, and how
//! it tells errors.
//!
//! Knows nothing of events, Kafka or ClickHouse.

pub mod vars;

pub mod follow;

pub mod logging;

pub mod error;

pub mod signal;

pub mod serve;

pub mod admin;

pub mod backoff;

pub mod problem;

pub mod request_id;

pub mod process;
