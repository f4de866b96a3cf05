//! The servers that are measured, which are the services of a [`World`], and those that they are compared with:
//! floors, and ClickHouse's Kafka engine.

pub mod world;

pub mod floors;

pub(crate) mod kafka_engine;

pub use floors::Floor;
pub use world::World;
