//! The aggregator: Kafka records become rows of ClickHouse.
//!
//! The files follow the way of the data: [`consume`] → [`partition`], which drives
//! [`restore`] → [`collect`] ([`decode`] → [`batch`] → [`aggregate`] → [`cells`]) →
//! [`commit`] → [`insert`]. What may be done when is decided by pure functions:
//! [`recover`], [`progress`], [`applied`], [`idle`], [`stall`]. [`backfill`] takes raw rows back and goes the
//! same way from [`aggregate`] on, and [`drop_rollup`] deletes what a rollup left. [`adopt`], [`split`] and [`skip`] are an operator's decisions
//! about a partition that stands still. Never speaks HTTP except on its admin port.

pub mod adopt;
pub mod aggregate;
pub mod applied;
pub mod audit;
pub mod backfill;
pub mod batch;
pub mod cells;
pub mod clock;
pub mod collect;
pub mod commit;
pub mod config;
pub mod configs;
pub mod consume;
pub mod dead_letters;
pub mod declaration;
pub mod decode;
pub mod drop_rollup;
pub mod freshness;
pub mod health;
pub mod idle;
pub mod in_use;
pub mod insert;
pub mod intent;
pub mod librdkafka;
pub mod markers;
pub mod metrics;
pub mod migrate;
pub mod native;
pub mod offline;
pub mod order;
pub mod orphans;
pub mod partition;
pub mod progress;
pub mod recover;
pub mod restore;
pub mod room;
pub mod rows;
pub mod skip;
pub mod split;
pub mod stall;
pub mod start;
pub mod store;
pub mod strata;
pub mod tables;
pub mod timestamps;
pub mod topic;
pub mod window;

pub use config::{BatchConfig, Config, KafkaConfig, MigrateConfig, StoreConfig};
pub use consume::GroupError;
pub use migrate::{MigrateError, Migrated, migrate};
pub use start::{RunError, Summary, run};
