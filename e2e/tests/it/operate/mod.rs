//! What operators encounter: mistakes in the configuration, dependencies that are down, logins and rights, restarts,
//! and the audit.

use std::path::PathBuf;

mod start_errors;

mod process;

mod late_dependencies;

mod login;

mod rights;

mod outage;

mod lag;

mod restarts;

mod audit;

/// The path of a program that the workspace builds, such as `ingest`.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join(name)
}
