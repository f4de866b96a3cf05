//! The contracts shared by more than one process: what a client sends, what
//! stands in Kafka, what stands in ClickHouse.
//!
//! The files follow the way of an event: [`event`] → [`line`] → [`record`] →
//! [`row`] → [`rollup`] and [`field`]; [`sample`] is what becomes of a rejected line; then [`tables`], where rows stand, and [`bi`], where they are
//! shown. No I/O, no clock, no tokio, no rdkafka.

mod named_enum;

mod json_text;

pub mod time;

pub mod event;

pub mod object;

pub mod line;

pub mod trace;

pub mod record;

pub mod sample;

pub mod row;

pub mod rollup;

pub mod field;

pub mod tables;

pub mod bi;
