//! The whole way on the real stack, one file per promise or system. Nothing is mocked.
//!
//! One Kafka and one ClickHouse serve all tests; each test has its own topic, database and
//! consumer group, and its own services: the workspace's real programs. What must have been
//! counted is told by an oracle that knows what the edge's answers accepted, never by what was sent.

#![expect(clippy::unwrap_used, reason = "in a test a panic with its line is the best report")]

use e2e::{client, hostile, oracle, profile, wire, world};

mod accepted;
mod analysts;
mod audit;
mod backfill;
mod bad_input;
mod clients;
mod connections;
mod country_counters;
mod damaged_logs;
mod declarations;
mod device_batches;
mod ends_of_time;
mod exactly_once;
mod fields;
mod flood;
mod forgiving;
mod freshness;
mod generations;
mod hostile_bodies;
mod hostile_lines;
mod hostile_peers;
mod inserts;
mod journey;
mod killed;
mod late_dependencies;
mod load;
mod login;
mod lost_parts;
mod manners;
mod outage;
mod ownership;
mod query;
mod reactions_by_path;
mod reactions_by_query;
mod record_times;
mod refused_batches;
mod rejected;
mod repeats;
mod rights;
mod rollups;
mod spool;
mod start_errors;
mod tls;
mod votes;
