//! The rules of exactly-once storage: when a batch may be declared, an offset committed, rows inserted and a
//! partition released, and which rows a record becomes.
//!
//! Invariant: no I/O, no clock, and nothing from the other folders. The model in `tests/model.rs` calls the same
//! functions as the pipeline.

pub mod progress;

pub mod intent;

pub mod recover;

pub mod truncation;

pub mod generation;

pub mod declaration;

pub mod limits;

pub mod window;

pub mod idle;

pub mod since;

pub mod stall;
