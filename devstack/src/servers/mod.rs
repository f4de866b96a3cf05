//! The servers of other projects that Millrace needs: Kafka and ClickHouse, as child processes or at the
//! addresses that the environment names.

pub mod kafka;

pub mod clickhouse;

pub mod clickhouse_library;

mod stack;

mod template;

pub use clickhouse::ClickHouse;
pub use kafka::Kafka;
pub use stack::{ExternalServers, Ports, Stack};
