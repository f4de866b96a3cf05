//! The whole way on the real stack, one folder for each kind of promise. Nothing is mocked.
//!
//! One Kafka and one ClickHouse serve all tests. Each test has its own topic, database and consumer group, and runs
//! the workspace's real programs. The expected counts come from an oracle that knows what the edge's answers accepted,
//! never from what was sent.

#![expect(clippy::unwrap_used, reason = "in a test a panic with its line is the best report")]

use e2e::{client, hostile, oracle, profile, readiness, wire, world};

mod systems;

mod edge;

mod exactly_once;

mod rollups;

mod read;

mod operate;
