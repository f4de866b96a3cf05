//! Serves a tower service over HTTP/1.1 and HTTP/2, plain or with TLS, until it is stopped.
//!
//! Listener, service and token come from the caller. Everything has a limit: connections, in all and per address, their
//! age and their idle time, handshakes, the size and time of headers, HTTP/2 streams and resets, and the drain. A
//! connection that fails does not affect any other. When the process runs out of file descriptors, the server pauses
//! accepting and closes idle connections.

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
