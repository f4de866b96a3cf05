//! Serves a tower service over HTTP/1.1 and HTTP/2, plain or with TLS, until it is stopped.
//!
//! Listener, service and token come from the caller. Everything is bounded: connections, also those of one
//! address, their age and their silence, handshakes, size and time of headers, HTTP/2 streams and resets, the
//! drain. A connection that breaks affects no other; when the process runs out of file descriptors, accepting
//! pauses and idle connections are closed.

pub mod tls;

mod listen;

mod server;

mod limits;

mod open_connections;

mod connection;

mod monitored;

mod activity;

mod protocol_refusal;

pub use connection::PeerAddr;
pub use limits::ConnectionLimits;
pub use listen::{Listeners, bind, every_address};
pub use open_connections::ConnectionMetrics;
pub use server::{DrainOverran, Server};

#[cfg(test)]
mod tests;
