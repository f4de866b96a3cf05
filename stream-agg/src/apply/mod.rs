//! ClickHouse: blocks of rows are inserted exactly once, and what the tables hold is read.

pub mod insert;

pub mod verdict;

pub mod markers;

pub mod tables;

pub mod configs;

pub mod store;
