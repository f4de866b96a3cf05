//! The servers of a run: the services of a [`World`], which are measured, and the servers that they are compared with,
//! which are floors and ClickHouse's Kafka engine.

pub mod world;

pub mod floors;

pub(crate) mod kafka_engine;

pub use floors::Floor;
pub use world::World;
