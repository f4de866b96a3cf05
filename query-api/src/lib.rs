//! The query API. Prepared answers (`/analytics`, `/v1/counters`, `/v1/polls` and `/v1/live`) are read from ClickHouse
//! and rendered before readers ask for them. Queries are sent to ClickHouse when a reader's request arrives.
//!
//! A prepared answer passes through these files: `refresh` asks ClickHouse once per interval, `answers` has the SQL
//! of each answer and renders its rows, `snapshot` holds all answers of one refresh, and `http` serves requests from
//! the latest snapshot (`live` serves those for `/v1/live`).
//!
//! Invariants: a request for a prepared answer sends no statement to ClickHouse, so the number of statements does not
//! depend on the number of such requests. Every answer with counts has an `as_of`: everything that was in Kafka before
//! this moment is counted. The `as_of` is unknown while the aggregator has not reported progress of all partitions.
//! No reader of one tenant sees the answers of another tenant; the figures of `/v1/pipeline`, which are about all
//! tenants together, are only for operators. This crate never connects to Kafka.

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
