//! Where the programs of this workspace are: in the target directory, beside
//! the program that asks.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, ensure};

/// The directory that cargo builds the running profile's programs into.
pub(crate) fn directory() -> anyhow::Result<PathBuf> {
    let program = env::current_exe().context("find the running program")?;
    let mut directory = program.parent().context("find the directory of the running program")?;
    // Tests, benches and examples stand one level below the programs.
    if directory.ends_with("deps") || directory.ends_with("examples") {
        directory = directory.parent().context("find the target directory")?;
    }
    Ok(directory.to_owned())
}

/// The program `name`, which must have been built.
pub(crate) fn find(name: &str) -> anyhow::Result<PathBuf> {
    let path = directory()?.join(name);
    ensure!(path.exists(), "find {}: it is not built; run `cargo build --workspace --bins`", path.display());
    Ok(path)
}
