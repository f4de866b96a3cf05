//! What runs beside the pipelines, and the commands of operators.
//!
//! Beside the pipelines: [`freshness`] and the periodic [`audit`]. Commands: [`migrate`], [`backfill`],
//! [`drop_rollup`], `audit`, and, while no aggregator runs ([`offline`]), [`adopt`], [`split`] and [`skip`].

pub mod freshness;

pub mod audit;

pub mod migrate;

pub mod backfill;

pub mod drop_rollup;

pub mod in_use;

pub mod adopt;

pub mod split;

pub mod skip;

pub mod offline;
