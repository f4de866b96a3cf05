//! The servers that Millrace needs: Kafka and ClickHouse, as child processes or at the addresses that environment
//! variables name.

pub mod kafka;

pub mod clickhouse;

pub mod clickhouse_library;

mod stack;

mod template;

pub use clickhouse::ClickHouse;
pub use kafka::Kafka;
pub use stack::{ExternalServers, Ports, Stack};
