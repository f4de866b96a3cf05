//! The servers of a run. The bench measures the services of a [`World`] and compares them with floors and with
//! ClickHouse's Kafka engine.

pub mod world;

pub mod floors;

pub(crate) mod kafka_engine;

pub use floors::Floor;
pub use world::World;
