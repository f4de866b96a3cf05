//! Paths on this machine: the workspace's programs, the downloads of `./dev`, and the directories for data and logs.

pub(crate) mod binaries;

pub(crate) mod cache;

pub mod data_directory;

pub mod page;

pub mod python;

pub use data_directory::DataDirectory;
