//! The bytes of one request become enriched lines.

pub mod body;

pub mod decode;

pub mod identity;

pub mod enrich;

pub mod geoip;

pub mod hot_keys;

pub mod samples;
