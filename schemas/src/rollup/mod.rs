//! Declared rollups: what they aggregate, and where they are stored.
//!
//! `declare` parses a declaration into [`Rollups`]. `text` writes [`Rollups`] in canonical form; the hash of this text
//! shows whether two processes have the same declarations. `page` writes the page `docs/built-in-rollups.md`.
//! [`layout`] has the table and the columns in which a rollup is stored. Invariant: a [`Rollup`] that exists is valid;
//! its names need no quotes in SQL.

mod grain;

mod dimension;

mod measure;

mod definition;

pub mod layout;

mod declare;

mod rollups;

mod text;

mod page;

pub use declare::DeclareError;
pub use definition::Rollup;
pub use dimension::{Column, Condition, Dimension};
pub use grain::Grain;
pub use measure::{Distinct, Measure, Number};
pub use rollups::Rollups;

pub use crate::prop_path::PropPath;

#[cfg(test)]
mod tests;
