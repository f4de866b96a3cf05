//! The rules of individual endpoints: which events `/v1/counters` allows, and how reactions and votes are rewritten
//! into ordinary lines.
//!
//! The folder `accept` applies the rules of counters and votes, and the folder `http` applies the rules of reactions.
//! This folder does not import these two folders. Only [`votes::refresh`] does I/O.

pub mod counters;

pub mod reactions;

pub mod votes;
