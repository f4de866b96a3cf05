//! The read API: ClickHouse's rows become answers, rendered in advance.
//!
//! The files follow the way of an answer: `refresh` asks ClickHouse once per interval, `answers` hold
//! what is asked and how its rows are rendered, `snapshot` is all answers of one refresh, `http` serves
//! requests from the latest snapshot. Invariants: no request asks ClickHouse, so the number of
//! statements does not depend on the number of requests; every answer names the moment that it is true
//! for; no tenant sees another's answers. This crate never connects to Kafka.

pub mod config;

mod problem;

mod filter;

mod access;

mod rendered;

mod cors;

mod document;

mod answers;

mod snapshot;

mod wanted;

pub mod metrics;

mod reach;

mod state;

mod left_out;

mod refresh;

mod http;

mod query;

mod meta;

mod openapi;

mod page;

mod people;

mod live;

mod pipeline;

mod app;

pub mod needs;

pub use app::{HttpService, QueryApi, StopError};
pub use config::Config;
pub use cors::CorsConfig;
