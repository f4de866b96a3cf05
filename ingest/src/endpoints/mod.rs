//! The rules of individual endpoints: which events they allow, and how requests in other forms become ordinary lines.
//!
//! The rules work on text. The folder `accept` applies the rules of counters and votes, and the folder `http` applies
//! those of reactions. Both import this folder, and this folder imports neither. Only [`votes::refresh`] does I/O.

pub mod counters;

pub mod reactions;

pub mod votes;
