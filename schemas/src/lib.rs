//! The contracts that more than one process shares: what a client sends, what is in Kafka, what is in
//! ClickHouse. No I/O, no clock, no tokio, no rdkafka.
//!
//! An event passes through the modules in this order: [`event`] (the client's line) → [`mod@line`] (the enriched
//! line) → [`record`] (in Kafka) → [`row`] (in the raw table) → [`rollup`] and [`field`] (what is declared) →
//! [`tables`] and [`bi`] (tables and views) → [`access`] (who may read them). [`sample`] is a rejected line in Kafka.
//!
//! Words for what is not accepted, in all crates:
//!
//! | word | meaning |
//! |---|---|
//! | fault | what is wrong with a line: a code, and the field that has it ([`event::Fault`]) |
//! | reject | a *line* with a fault is rejected, and the fault's code reported; the other lines are accepted |
//! | left out | a *label* (`client_time`, `country`, `device_os`) that cannot be read: its event is stored without it |
//! | refusal | a *request* that is not accepted at all, and why; the sender gets a problem |
//! | problem | the JSON body of the response to a refused request (RFC 9457, `runtime::problem`) |
//! | dead letter | a line in Kafka that is stored in `dead_letters` instead of `events` |

mod named_enum;

pub mod time;

mod json_text;

pub mod event;

pub mod object;

pub mod line;

pub mod trace;

pub mod record;

pub mod sample;

mod event_time;

pub mod row;

mod prop_path;

pub mod field;

mod reserved_names;

mod table_partition;

pub mod rollup;

pub mod tables;

pub mod bi;

pub mod access;
