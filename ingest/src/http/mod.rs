//! Requests and answers of HTTP.

pub mod layers;

pub mod handlers;

pub mod response;

pub mod refusal_log;

pub mod cors;
