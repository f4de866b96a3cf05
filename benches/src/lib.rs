//! Measures, for `./dev bench`: everything side by side in one run on one machine.
//!
//! Asserts nothing about time; counts must be exact all the same. The files stand in the
//! order of a run: what is sent, who takes part, what is measured, how it is shown; and beside
//! them the single steps, whose instructions are counted.

pub mod events;

pub mod work;

pub mod load;

pub mod floors;

pub mod world;

pub mod contest;

pub mod measure;

pub mod table;

pub mod goals;

pub mod engine;

mod drain;

pub mod rest;

pub mod setup;

pub mod steps;
