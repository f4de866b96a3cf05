//! What a run sends: generated events of three kinds, as prepared requests and as records in Kafka.

mod events;

pub mod requests;

pub mod records;

pub(crate) use events::PROPS;
pub use events::{Events, Work};
