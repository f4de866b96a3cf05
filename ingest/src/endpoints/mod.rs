//! What single endpoints do beyond `/v1/events`: which events they allow, and how requests in other forms become
//! ordinary lines.
//!
//! These are rules on text; the folder `accept` applies them as steps of every request, so it imports this folder and
//! not the other way round. Only [`votes::refresh`] does I/O.

pub mod counters;

pub mod reactions;

pub mod votes;
