//! The read API: it reads rows from ClickHouse and renders them into answers before readers ask for them.
//!
//! A prepared answer passes through these files: `refresh` asks ClickHouse once per interval, `answers` has the SQL
//! of each answer and renders its rows, `snapshot` holds all answers of one refresh, and `http` serves requests from
//! the latest snapshot. Invariants: a request for a prepared answer does not ask ClickHouse, so the number of
//! statements does not depend on the number of requests; every answer names the moment up to which it counts all
//! events; no tenant sees another tenant's answers. This crate never connects to Kafka.

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
