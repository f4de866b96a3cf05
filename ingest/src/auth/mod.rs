//! Who sends a request, and how many events they may send.

pub mod client_ip;

pub mod keys;

pub mod key_file;

pub mod rate;
