//! Turns records into blocks of rows: decode → batch → aggregate → cells.
//!
//! Pure. Invariant: equal records with an equal deduplication window, under an equal declaration, give equal bytes, in
//! any process and at any time.

pub mod decode;

pub mod columns;

pub mod dead_letters;

pub mod batch;

pub mod strata;

pub mod aggregate;

pub mod order;

pub mod cells;

pub mod native;
