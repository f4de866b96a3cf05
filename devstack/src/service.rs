//! One of our services as a child process, as it runs in production: its own program, configured by environment
//! variables, stopped by signals.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::paths::{DataDirectory, binaries};
use crate::ports;
use crate::process::{Process, guard};

/// Longest wait for a service to be ready, while Kafka and ClickHouse run.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait from SIGTERM to the exit. With the default settings, every service stops within a shorter time.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for the answer to one probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A running service.
#[derive(Debug)]
pub struct Service {
    program: Program,
    process: Process,
    http_port: u16,
    admin_port: u16,
    client: reqwest::Client,
}

/// The program, variables and log file of a service, which a restart reuses.
#[derive(Debug)]
struct Program {
    name: String,
    vars: Vec<(String, String)>,
    log: PathBuf,
}

impl Program {
    fn start(&self) -> anyhow::Result<Process> {
        let vars: Vec<_> = self.vars.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Process::start(&self.name, command(&self.name, &vars)?, &self.log)
    }
}

impl Service {
    /// Starts the workspace's program `name`. Its environment has only these variables, and `LISTEN_ADDR` and
    /// `ADMIN_ADDR` with free ports. Its log is a file in `directory`. Does not wait until the service is ready.
    pub fn start(name: &str, vars: &[(&str, &str)], directory: &DataDirectory) -> anyhow::Result<Self> {
        let http_port = ports::free().context("find a free port")?;
        let admin_port = ports::free().context("find a free port")?;
        let addresses = [("LISTEN_ADDR", http_port), ("ADMIN_ADDR", admin_port)]
            .map(|(name, port)| (name.to_owned(), ports::local(port).to_string()));
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let log = log_of(&format!("{name}-{http_port}"), directory);
        let program = Program { name: name.to_owned(), vars: vars.chain(addresses).collect(), log };
        let process = program.start()?;
        let client = reqwest::Client::builder().timeout(PROBE_TIMEOUT).build();
        Ok(Self { program, process, http_port, admin_port, client: client.context("make an HTTP client")? })
    }

    /// Sets a variable, which takes effect when the service is started again.
    pub fn set(&mut self, name: &str, value: &str) {
        self.program.vars.retain(|(other, _)| other != name);
        self.program.vars.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the service again after it has exited, with the same program, variables, ports and log.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        ensure!(self.process.exited().is_some(), "start {}: it is already running", self.program.name);
        self.process = self.program.start()?;
        Ok(())
    }

    /// Runs a command of the workspace's program `name`, for example `stream-agg migrate`, and waits until the program
    /// has exited. Its environment has only these variables. Returns an error if the program fails or does not exit
    /// within `deadline`.
    pub async fn run(
        name: &str,
        arguments: &[&str],
        vars: &[(&str, &str)],
        directory: &DataDirectory,
        deadline: Duration,
    ) -> anyhow::Result<()> {
        let mut command = command(name, vars)?;
        command.args(arguments);
        let mut process = Process::start(name, command, &log_of(name, directory))?;
        let status = process.wait_for_exit(deadline).await?;
        ensure!(status.success(), "run {name} {}: {status}; {}", arguments.join(" "), process.log_tail());
        Ok(())
    }

    /// The address for users: `http://127.0.0.1:…`, without a slash at the end.
    pub fn http(&self) -> String {
        format!("http://{}", ports::local(self.http_port))
    }

    /// The address for probes and scrapes: `http://127.0.0.1:…`, without a slash at the end.
    pub fn admin(&self) -> String {
        format!("http://{}", ports::local(self.admin_port))
    }

    /// Waits until `/readyz` answers 200, and returns how long that took.
    pub async fn wait_ready(&mut self) -> anyhow::Result<Duration> {
        let (client, url) = (self.client.clone(), format!("{}/readyz", self.admin()));
        let ready = async || client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
        self.process.wait_until("be ready", READY_DEADLINE, ready).await
    }

    /// Sends SIGTERM and waits until the service has exited.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.terminate(STOP_DEADLINE).await
    }

    /// Kills the service with SIGKILL and waits until it has exited.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// The process, for its id, its log or a signal to it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The command that runs a program with these variables only: the developer's environment must not change a test.
fn command(name: &str, vars: &[(&str, &str)]) -> anyhow::Result<Command> {
    let mut command = guard::command(&binaries::find(name)?)?;
    command.env_clear().envs(vars.iter().copied());
    Ok(command)
}

fn log_of(name: &str, directory: &DataDirectory) -> PathBuf {
    directory.path().join(format!("{name}.log"))
}
