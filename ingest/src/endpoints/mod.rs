//! What single endpoints take beyond plain events.

pub mod reactions;

pub mod votes;
