//! The outside world, locally: real Kafka and real ClickHouse as child processes.
//!
//! Invariants: a child never outlives this process, however it ends; two
//! processes never share a data directory; every wait has a deadline and says
//! what it waited for. Nothing in here is used in production.

pub mod wait;

pub mod ports;

pub mod directory;

pub mod process;

pub mod guard;

pub mod kafka;

pub mod clickhouse;

pub mod library;

pub mod stack;

pub mod service;

pub mod traffic;

pub mod usage;

pub mod python;

pub mod up;

mod binaries;
mod cache;
mod spawner;
mod template;

pub use clickhouse::ClickHouse;
pub use directory::DataDirectory;
pub use kafka::Kafka;
pub use service::Service;
pub use stack::{Given, Ports, Stack};
pub use wait::wait_for;
