//! What a run shows and keeps: the table of throughput, the goals, and how the run was made.

pub mod table;

pub mod goals;

pub mod setup;
