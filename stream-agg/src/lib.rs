//! The aggregator: Kafka records become rows of ClickHouse.
//!
//! The folders, in an order in which each folder uses only folders that are listed before it:
//!
//! - [`protocol`] has the rules of exactly-once storage: what may be committed or inserted, and when. Pure.
//! - [`rows`] turns a batch of records into blocks for the tables: pure.
//! - [`apply`] inserts the blocks into ClickHouse, each exactly once.
//! - [`kafka`] has the Kafka clients, commits offsets, and wraps what only librdkafka's C interface offers.
//! - [`pipeline`] drives one partition: restore → collect → declare → insert.
//! - [`group`] is a member of the consumer group, and starts and stops the pipelines.
//! - [`ops`] runs the background tasks next to the pipelines, and has the commands for operators.
//!
//! All folders except [`protocol`] also use some of the modules [`config`], [`health`], [`metrics`] and [`clock`].
//! [`start`] starts and stops the aggregator. [`needs`] says which memory, time to stop, ports and connections a
//! configuration needs. The aggregator serves HTTP only on its admin port.
//!
//! Words that all folders use:
//!
//! | word | meaning |
//! |---|---|
//! | batch | consecutive records of one Kafka partition, which are inserted together |
//! | cell | the rows of a batch for one table partition: one insert, one part |
//! | marker | a row of tenant `''` in each cell: the table partition has a Kafka partition's rows below offset `hwm` |
//! | intent | the metadata of a commit: which batch follows the committed offset, and what its rows depend on |
//! | declare a batch | commit its intent before any of its rows is inserted |
//! | declaration | the rollups, fields and limits under which rows are made; the column `cfg` has its hash |
//! | token | the `insert_deduplication_token` of an insert, by which ClickHouse recognises a repeated insert |

pub mod clock;
pub mod config;
pub mod health;
pub mod metrics;

pub mod protocol;
pub mod rows;

pub mod apply;
pub mod kafka;

pub mod pipeline;

pub mod group;

pub mod ops;

pub mod start;

pub mod needs;

pub use config::{BatchConfig, Config, KafkaConfig, MigrateConfig, StoreConfig};
pub use group::GroupError;
pub use ops::migrate::{MigrateError, Migrated, migrate};
pub use start::{RunError, Summary, run};
