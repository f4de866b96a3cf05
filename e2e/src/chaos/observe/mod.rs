//! What a run observes: its clock, counts of faults, and counters of the services.

pub mod counter;

pub(super) mod clock;

pub(super) mod run_stats;

pub(super) use clock::Clock;
pub use counter::Counter;
pub(super) use run_stats::RunStats;
