//! Tests of the whole pipeline on the real stack, with one folder for each kind of promise. Nothing is mocked.
//!
//! All tests share one Kafka and one ClickHouse, unless a test stops or changes its servers. Each test has its own
//! topic, database and consumer group, and runs the workspace's real programs. The expected counts come from an oracle,
//! which counts the events that the edge accepted, not the events that were sent.

#![expect(clippy::unwrap_used, reason = "in a test a panic with its line is the best report")]

use e2e::{client, hostile, oracle, profile, readiness, wire, world};

mod systems;

mod edge;

mod exactly_once;

mod rollups;

mod read;

mod operate;
