//! The aggregator: Kafka records become rows of ClickHouse.
//!
//! The files follow the way of the data: [`consume`] → [`partition`], which drives
//! [`decode`] (with [`window`]) → [`batch`] → [`aggregate`] → [`cells`] → [`insert`] → [`progress`].
//! The middle steps are pure. Never speaks HTTP except on its admin port.

pub mod aggregate;
pub mod batch;
pub mod cells;
pub mod config;
pub mod consume;
pub mod dead_letters;
pub mod decode;
pub mod freshness;
pub mod health;
pub mod insert;
pub mod metrics;
pub mod migrate;
pub mod native;
pub mod partition;
pub mod progress;
pub mod rows;
pub mod start;
pub mod store;
pub mod window;

pub use config::{BatchConfig, Config, KafkaConfig, MigrateConfig, StoreConfig};
pub use consume::GroupError;
pub use migrate::{MigrateError, Migrated, migrate};
pub use start::{RunError, Summary, run};
