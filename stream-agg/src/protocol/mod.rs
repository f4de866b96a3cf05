//! The rules of exactly-once storage: when a batch may be declared, when an offset may be committed, when rows may be
//! inserted, when a partition may be released, and which rows a record becomes.
//!
//! Invariant: no I/O, no clock, and no dependency on the other modules of this crate. The model in `tests/model.rs`
//! calls the same functions as the pipeline.

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
