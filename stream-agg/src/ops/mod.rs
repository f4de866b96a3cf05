//! Background tasks that run while the pipelines work, and the commands for operators.
//!
//! Background tasks: [`freshness`] and the periodic [`audit`]. Commands: [`migrate`], [`backfill`], [`drop_rollup`]
//! and `audit`. Commands that need all aggregators stopped ([`offline`]): [`adopt`], [`split`] and [`skip`].

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
