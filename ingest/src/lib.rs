//! The edge: HTTP bytes become Kafka records. Knows neither ClickHouse nor rollups.
//!
//! The files follow the way of a request: [`http`] → [`body`] → [`decode`] →
//! [`enrich`] → [`publish`] → [`answer`]; [`votes`] and reactions ([`compat`]) become
//! ordinary lines on the way; [`samples`] keep a few of the bad ones, and
//! [`refusals`] tell of a few refused requests. A request is answered `200` only when every
//! record that holds one of its lines is acknowledged by Kafka or safe in the [`spool`].
//!
//! What bounds its memory: bodies being read and inflated, by `IN_FLIGHT_BYTES`; lines
//! being made of them, by the bench in [`http`]; lines that Kafka has not acknowledged, by `UNACKED_BYTES`; requests at once, by
//! `MAX_REQUESTS`; connections, in [`runtime::serve`].

pub mod config;

pub mod edge;

pub mod layers;

pub mod cors;

pub mod http;

pub mod client_ip;

pub mod geoip;

pub mod keys;

pub mod identity;

pub mod compat;

pub mod body;

pub mod decode;

pub mod votes;
pub mod warnings;

pub mod hot_keys;

pub mod enrich;

pub mod samples;

pub mod publish;

pub mod spool;

pub mod outcome;

pub mod answer;

pub mod refusals;

pub mod metrics;

pub use config::Config;
pub use edge::{Edge, RunError, StartError, Summary};
