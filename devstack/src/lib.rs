//! Runs real Kafka and ClickHouse as local child processes.
//!
//! Invariants: on Linux, a child never outlives this process, however this process ends; two stacks never share a data
//! directory; every wait for a condition has a deadline, and if the condition is not met in time, the error names it.
//! Nothing in this crate is used in production.

pub mod wait;

pub mod ports;

pub mod paths;

pub mod process;

pub mod servers;

pub mod service;

pub mod traffic;

pub mod up;

pub use paths::cache::{bi_clients_node_modules, bi_clients_python, bi_superset_python, jdbc_jars};
pub use paths::{DataDirectory, page, python};
pub use process::usage;
pub use servers::{ClickHouse, ExternalServers, Kafka, Ports, Stack, clickhouse, kafka};
pub use service::Service;
pub use wait::wait_for;
