//! The programs of this workspace. Cargo builds all of them into one directory, and [`directory`] finds it from the
//! path of the running program.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, ensure};

/// The directory into which cargo builds programs with the profile of the running program.
pub(crate) fn directory() -> anyhow::Result<PathBuf> {
    let program = env::current_exe().context("find the running program")?;
    let mut directory = program.parent().context("find the directory of the running program")?;
    // Tests, benches and examples are one level below the programs.
    if directory.ends_with("deps") || directory.ends_with("examples") {
        directory = directory.parent().context("find the target directory")?;
    }
    Ok(directory.to_owned())
}

/// The path of the program `name`. Fails if it is not built.
pub(crate) fn find(name: &str) -> anyhow::Result<PathBuf> {
    let path = directory()?.join(name);
    ensure!(
        path.exists(),
        "find {}: it is not built; run `cargo build --workspace --bins` (for target/release: with `--release`; for \
         peer-*: `./dev bench --peers`)",
        path.display()
    );
    Ok(path)
}
