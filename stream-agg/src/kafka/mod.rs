//! Kafka: its clients, what is committed, and what is known of the topic.

pub mod client;

pub mod group_context;

pub mod commit;

pub mod topic;

pub mod timestamps;

pub mod read_error;

pub mod librdkafka;
