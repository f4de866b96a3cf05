//! The promises of the edge to its clients: what it accepts, how it answers, and what survives a crash, a flood or a
//! hostile client.

mod accepted;

mod bad_input;

mod forgiving;

mod manners;

mod clients;

mod rejected;

mod connections;

mod tls;

mod spool;

mod killed;

mod flood;

mod hostile_bodies;

mod hostile_lines;

mod hostile_peers;
