//! What is measured, and what it is compared with: the services of a [`World`], floors, and ClickHouse's Kafka
//! engine.

pub mod world;

pub mod floors;

pub(crate) mod kafka_engine;

pub use floors::Floor;
pub use world::World;
