//! The edge: HTTP bytes become Kafka records. It depends neither on ClickHouse nor on rollups.
//!
//! The way of a request through the folders:
//!
//! 1. [`http`]: the layers around the request, and the handler of its route
//! 2. [`auth`]: who sends the request, and how many events they may send
//! 3. [`accept`]: its body is read, decoded, checked and enriched; [`endpoints`] has the rules of single routes
//! 4. [`publish`]: its lines are collected into records for Kafka, or for the [`spool`] while Kafka is unreachable
//! 5. [`http::response`]: the response, rendered
//!
//! [`edge`] starts and stops all of it, with [`config`] for its variables and [`app`] for what all requests share. A
//! folder imports only folders that stand above it in the list of modules below; the files before [`auth`] are the
//! vocabulary of all folders and import none.
//!
//! A request is answered `200` only when every record with one of its lines is acknowledged by Kafka or stored in the
//! spool.
//!
//! Memory is bounded: bodies that are read or decompressed, by `IN_FLIGHT_BYTES`; lines that are made from them, by the
//! budget in [`accept::work_budget`]; lines that Kafka has not acknowledged, by `UNACKED_BYTES`; concurrent requests, by
//! `MAX_REQUESTS`; connections, in [`runtime::serve`].

pub mod route;

pub mod content;

pub mod line;

pub mod address_source;

pub mod outcome;

pub mod warnings;

pub mod metrics;

pub mod auth;

pub mod endpoints;

pub mod accept;

pub mod spool;

pub mod publish;

pub mod app;

pub mod http;

pub mod config;

pub mod edge;

pub mod needs;

pub mod commands;

pub use config::Config;
pub use edge::{Edge, RunError, Summary};
pub use publish::StartError;
