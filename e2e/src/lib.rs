//! The code of the program `chaos`, and helpers of the end-to-end tests in `tests/it`; `chaos` also uses some of the
//! helpers. `chaos` and the tests run the real programs on a real Kafka and ClickHouse, from the HTTP request to the
//! answer.

#![expect(clippy::unwrap_used, reason = "in a test a panic with its line is the best report")]

pub mod client;

pub mod oracle;

pub mod invariants;

pub mod world;

pub mod readiness;

pub mod wire;

pub mod profile;

pub mod hostile;

pub mod chaos;
