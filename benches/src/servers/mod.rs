//! The servers of a run. The bench measures the services of a [`World`]. It compares them with [`floors`], which are
//! servers that do only one part of Millrace's work, and with ClickHouse's Kafka engine.

pub mod world;

pub mod floors;

pub(crate) mod kafka_engine;

pub use floors::Floor;
pub use world::World;
