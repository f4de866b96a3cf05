//! The edge: HTTP bytes become Kafka records. Knows neither ClickHouse nor rollups.
//!
//! The files follow the way of a request: [`http`] → [`accept::body`] → [`accept::decode`] →
//! [`accept::enrich`] → [`publish`] → [`http::response`]; [`endpoints::votes`] and reactions ([`endpoints::reactions`]) become
//! ordinary lines on the way; [`accept::samples`] keep a few of the bad ones, and
//! [`http::refusal_log`] tell of a few refused requests. A request is answered `200` only when every
//! record that holds one of its lines is acknowledged by Kafka or safe in the [`spool`].
//!
//! What bounds its memory: bodies being read and inflated, by `IN_FLIGHT_BYTES`; lines
//! being made of them, by the bench in [`http`]; lines that Kafka has not acknowledged, by `UNACKED_BYTES`; requests at once, by
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

pub mod commands;

pub use config::Config;
pub use edge::{Edge, RunError, Summary};
pub use publish::StartError;
