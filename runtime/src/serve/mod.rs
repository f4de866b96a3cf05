//! Serves a tower service over HTTP/1.1 and HTTP/2, plain or with TLS, until a token is cancelled.
//!
//! The caller passes the listener, the service and the token. Everything has a limit: the number of
//! connections (in all and per client address), their age and idle time, the time of TLS handshakes, the size and time
//! of headers, HTTP/2 streams and resets, and the time of the drain. A connection that fails does not affect others.
//! When the process runs out of file descriptors, the server pauses accepting and closes idle connections.

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
