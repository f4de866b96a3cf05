//! One of our services as a child process, the way it runs in production:
//! its own program, told by variables, stopped by signals.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::directory::DataDirectory;
use crate::process::Process;
use crate::{binaries, guard, ports};

/// From the start of a service to readiness, with Kafka and ClickHouse there.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// From SIGTERM to the end: what a service allows itself, and some more.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// One question to the admin port.
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

/// What a service is started from, each time.
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
    /// Starts the workspace's program `name` on free ports with these variables and
    /// no others, and does not wait until it is ready. Its log is a file in `directory`.
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

    /// Changes what it is told by a variable, from its next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.program.vars.retain(|(other, _)| other != name);
        self.program.vars.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it once more after it has ended: the same program, variables, ports and log.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        ensure!(self.process.exited().is_some(), "start {}: it is running", self.program.name);
        self.process = self.program.start()?;
        Ok(())
    }

    /// Runs the workspace's program `name` with these arguments and variables to its
    /// successful end, such as `stream-agg migrate`.
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
        let status = process.ended(deadline).await?;
        ensure!(status.success(), "run {name} {}: {status}; {}", arguments.join(" "), process.log_tail());
        Ok(())
    }

    /// Where users call it: `http://127.0.0.1:…`, without a slash at the end.
    pub fn http(&self) -> String {
        format!("http://{}", ports::local(self.http_port))
    }

    /// Where probes and scrapes call it, likewise.
    pub fn admin(&self) -> String {
        format!("http://{}", ports::local(self.admin_port))
    }

    /// Waits until `/readyz` answers 200.
    pub async fn wait_ready(&mut self) -> anyhow::Result<Duration> {
        let (client, url) = (self.client.clone(), format!("{}/readyz", self.admin()));
        let ready = async || client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
        self.process.until("be ready", READY_DEADLINE, ready).await
    }

    /// SIGTERM, and waits until it has ended.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.terminate(STOP_DEADLINE).await
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Its process, for its id, its log or a signal to it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The program with these variables only: a variable of the developer's must not change a test.
fn command(name: &str, vars: &[(&str, &str)]) -> anyhow::Result<Command> {
    let mut command = guard::command(&binaries::find(name)?)?;
    command.env_clear().envs(vars.iter().copied());
    Ok(command)
}

fn log_of(name: &str, directory: &DataDirectory) -> PathBuf {
    directory.path().join(format!("{name}.log"))
}
