//! The whole way, from HTTP to the answer, on real Kafka and real ClickHouse: what the tests in
//! `tests/it` and the program `chaos` share, and chaos itself.

#![expect(clippy::unwrap_used, reason = "in a test a panic with its line is the best report")]

pub mod client;

pub mod oracle;

pub mod invariants;

pub mod world;

pub mod wire;

pub mod profile;

pub mod hostile;

pub mod chaos;
