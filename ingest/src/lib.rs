//! The edge: turns HTTP requests into Kafka records. It does not depend on ClickHouse or on rollups.
//!
//! A request passes through the folders in this order:
//!
//! 1. [`http`]: the layers around the request, and the handler of its route
//! 2. [`auth`]: authenticates the sender, and limits how many events it may send
//! 3. [`accept`]: reads, decodes, checks and enriches the body; [`endpoints`] has the rules of individual routes
//! 4. [`publish`]: collects the lines into records for Kafka, or for the [`spool`] while Kafka is unreachable or
//!    overloaded
//! 5. [`http::response`]: renders the response
//!
//! [`edge`] starts and stops everything, [`config`] reads the variables, and [`app`] holds what all requests share. The
//! `mod` lines below are in the order of imports: a folder imports only folders that are declared above it. The files
//! that are declared before [`auth`] define types that several folders use, and import no folder.
//!
//! The edge answers a request with `200` only after Kafka has acknowledged, or the spool has stored, every record that
//! contains one of the request's lines.
//!
//! Every use of memory has a limit: `IN_FLIGHT_BYTES` for the bodies of requests (of which the budget in
//! [`accept::work_budget`] is for the copies that are made while a body is decompressed or its lines are enriched),
//! `UNACKED_BYTES` for lines that wait for Kafka or the spool, `MAX_REQUESTS` for concurrent requests, and the limits
//! in [`runtime::serve`] for connections.

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
