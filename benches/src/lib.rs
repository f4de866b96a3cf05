//! Measures, for `./dev bench`: everything side by side in one run on one machine.
//!
//! Asserts nothing about time; but counts must be exact. The modules stand in the order of a run: the
//! plan, what is sent, the load generator, the servers, the comparison, the measurements, the report. Beside
//! them are the single steps, whose instructions are counted.

pub mod plan;

pub mod input;

pub mod load;

pub mod servers;

pub mod compare;

pub mod measure;

pub mod report;

pub mod steps;

mod progress;
