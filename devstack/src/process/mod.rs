//! Child processes, each with a log file.
//!
//! Invariant: when a child exits early or a wait for it reaches its deadline, the error quotes the end of the
//! child's log and names the file. A dropped child is killed.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_for;

pub mod guard;

pub mod usage;

mod spawner;

/// Number of lines that an error quotes from the end of a log.
const TAIL_LINES: usize = 15;
/// Number of bytes that are read from the end of a log to find these lines.
const TAIL_BYTES: u64 = 8 * 1024;

/// A child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` and appends its output to the file `log`. The standard input of the child is a pipe that stays
    /// open until [`Process::close_input`].
    pub fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log);
        let output = output.with_context(|| format!("open {}", log.display()))?;
        let errors = output.try_clone().with_context(|| format!("open {}", log.display()))?;
        // The child gets its own process group. So Ctrl-C signals only this process, which then ends its children in
        // order.
        command.process_group(0).stdin(Stdio::piped()).stdout(output).stderr(errors);
        let child = spawner::spawn(command).with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if the child has exited.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        // `try_wait` fails only for a process that is not our child.
        self.child.try_wait().ok().flatten()
    }

    /// Waits until `condition` holds, and returns how long that took. Returns an error if the child exits first or if
    /// `deadline` passes first. `what` names the condition in the error for a missed deadline, such as "answer on port
    /// 18123".
    pub async fn wait_until(
        &mut self,
        what: &str,
        deadline: Duration,
        mut condition: impl AsyncFnMut() -> bool,
    ) -> anyhow::Result<Duration> {
        let mut ended = None;
        let waited = wait_for(format!("{} to {what}", self.name), deadline, async || {
            ended = self.exited();
            ended.is_some() || condition().await
        });
        let waited = waited.await;
        match (ended, waited) {
            (Some(status), _) => bail!("{} ended early, {status}; {}", self.name, self.log_tail()),
            (None, Ok(waited)) => Ok(waited),
            (None, Err(overdue)) => bail!("{overdue}; {}", self.log_tail()),
        }
    }

    /// Sends SIGTERM and waits until the child has exited. At `deadline`, kills the child and returns an error.
    pub async fn terminate(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_for_exit(deadline).await
    }

    /// Closes the child's standard input.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until the child has exited. At `deadline`, kills the child and returns an error.
    pub async fn wait_for_exit(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let mut status = None;
        let waited = wait_for(format!("{} to end", self.name), deadline, async || {
            status = self.exited();
            status.is_some()
        });
        let waited = waited.await;
        match (status, waited) {
            (Some(status), _) => Ok(status),
            (None, Err(overdue)) => {
                self.kill9();
                bail!("{overdue}, so the process was killed; {}", self.log_tail())
            }
            (None, Ok(_)) => unreachable!("the wait ends with a status"),
        }
    }

    /// Sends SIGKILL and reaps the process.
    pub fn kill9(&mut self) {
        // Neither call fails for a child of this process, even if the child has already exited.
        let _exited = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// Sends the child a signal, such as `STOP` to pause it or `CONT` to continue it. Does nothing if it has exited.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.exited().is_some() {
            return Ok(());
        }
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("read a process id")?;
        kill_process(id, signal).with_context(|| format!("send {signal:?} to {}", self.name))
    }

    /// The last lines of the child's log, with the name of the file.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    /// The log file, which holds the child's output.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// A text for an error: the last lines of a log and the name of the file, or that the log is empty or unreadable.
pub fn log_tail(log: &Path) -> String {
    match read_tail(log) {
        Ok(text) if text.trim().is_empty() => format!("its log {} is empty", log.display()),
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
            format!("the end of {}:\n  {last}", log.display())
        }
        Err(error) => format!("its log {} cannot be read: {error}", log.display()),
    }
}

fn read_tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let size = fs::metadata(path)?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::DataDirectory;

    /// A child that runs `script`, and the directory of its log.
    fn shell(script: &str) -> (Process, DataDirectory) {
        let directory = DataDirectory::for_test("process").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let child = Process::start("shell", command, &directory.path().join("shell.log")).unwrap();
        (child, directory)
    }

    #[tokio::test]
    async fn the_error_for_a_child_that_ends_early_quotes_its_log() {
        let (mut child, _directory) = shell("echo no room on the disk; exit 3");
        let error = child
            .wait_until("answer", Duration::from_secs(10), async || false)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("shell ended early, exit status: 3; the end of "), "{error}");
        assert!(error.ends_with("shell.log:\n  no room on the disk"), "{error}");
    }

    #[tokio::test]
    async fn a_child_that_ignores_sigterm_is_killed_at_the_deadline() {
        let (mut child, _directory) = shell("trap '' TERM; echo deaf; while :; do sleep 1; done");
        let log = child.log().to_owned();
        let deaf = async || fs::read_to_string(&log).is_ok_and(|text| text.contains("deaf"));
        child.wait_until("ignore SIGTERM", Duration::from_secs(10), deaf).await.unwrap();
        let error = child.terminate(Duration::from_millis(50)).await.unwrap_err().to_string();
        assert!(error.contains("so the process was killed"), "{error}");
        assert!(child.exited().is_some());
    }
}
