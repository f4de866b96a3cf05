//! Kafka: the clients, the commits, and the checks of the topic.

pub mod client;

pub mod group_context;

pub mod commit;

pub mod topic;

pub mod timestamps;

pub mod read_error;

pub mod librdkafka;
