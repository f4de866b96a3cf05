//! The rules of individual endpoints: which events they allow, and how requests in other forms become ordinary lines.
//!
//! The rules work on text. The folder `accept` applies them as steps of every request, so `accept` imports this folder,
//! and not the other way round. Only [`votes::refresh`] does I/O.

pub mod counters;

pub mod reactions;

pub mod votes;
