//! A child dies with its parent, also when the parent is killed.
//!
//! Between fork and exec only unsafe code could ask the kernel for that, so
//! the child is first our own program, which asks and then becomes the other.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{self, Command};

use anyhow::{Context, ensure};

use crate::binaries;

/// The hidden subcommand of `devstack` that calls [`exec`].
const SUBCOMMAND: &str = "guarded";

/// A command that runs `program` such that it dies with this process; add its arguments.
pub(crate) fn command(program: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(binaries::find("devstack")?);
    command.arg(SUBCOMMAND).arg(process::id().to_string()).arg(program);
    Ok(command)
}

/// In the child: asks to die with `parent`, then becomes `program`. Returns only if that failed.
pub fn exec(parent: u32, program: &Path, arguments: &[OsString]) -> anyhow::Result<Infallible> {
    die_with(parent)?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("run {}", program.display()))
}

/// Asks the kernel to kill this process when the thread that started it ends. On
/// other systems than Linux there is no such thing: there, only ClickHouse
/// notices, because its standard input ends.
pub(crate) fn die_with(parent: u32) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("ask to die with the parent")?;
    // It may have died before we asked; then somebody else is our parent by now.
    ensure!(parent_id() == parent, "start as a child of process {parent}: it is gone");
    Ok(())
}
