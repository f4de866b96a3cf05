//! ClickHouse: inserts blocks of rows exactly once, and reads what the tables hold.

pub mod insert;

pub mod verdict;

pub mod markers;

pub mod tables;

pub mod configs;

pub mod since;

pub mod server;

pub mod store;

pub mod visible;
