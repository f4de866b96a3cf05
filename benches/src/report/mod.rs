//! What a run prints and keeps: the table of throughput, the goals, and the setup of the run.

pub mod table;

pub mod goals;

pub mod setup;
