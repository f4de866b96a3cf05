//! ClickHouse: a local server, or the external server at `CLICKHOUSE_URL`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use ::clickhouse::Client;
use anyhow::{Context, ensure};
use schemas::access::{self, DatabaseScope, User, xml};

use super::template::render;
use crate::paths::{binaries, cache};
use crate::process::Process;

/// Longest wait from the start of the process to the first answer.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for the process to exit after its standard input was closed.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for the answer to one ping.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// A local server's user for analysts. Of Millrace's data, this user may read the analysts' views and nothing else.
pub const BI_READER: &str = "bi_reader";
/// A local server's user for tools with a JDBC driver. This user has the same rights as [`BI_READER`]. It has its own
/// name so that ClickHouse's logs show which queries come from these tools.
pub const BI_JDBC: &str = "bi_jdbc";
/// The password of the services' users, [`BI_READER`] and [`BI_JDBC`] on a local server. It is valid on this machine
/// only.
pub const LOCAL_PASSWORD: &str = "local";

/// The hidden subcommand of `devstack` that runs the server.
const SUBCOMMAND: &str = "clickhouse-server";

/// A ClickHouse server: a local one, or an external one. Devstack neither starts nor stops an external server.
#[derive(Debug)]
pub struct ClickHouse {
    url: String,
    local: Option<Server>,
}

/// A local server.
#[derive(Debug)]
struct Server {
    directory: PathBuf,
    http_port: u16,
    native_port: u16,
    /// The value of the environment variable `TZ` for the server. If `None`, the server inherits this process's `TZ`.
    time_zone: Option<&'static str>,
    process: Option<Process>,
}

impl ClickHouse {
    /// An external server at `url`.
    pub fn external(url: &str) -> Self {
        Self { url: url.to_owned(), local: None }
    }

    /// A local server, not yet started, with its data in `directory` and these ports.
    pub fn prepare(directory: PathBuf, http_port: u16, native_port: u16) -> anyhow::Result<Self> {
        let path = directory.to_str().context("read the data directory's path as UTF-8")?;
        render(
            include_str!("../../config/clickhouse.xml"),
            &[("directory", path)],
            &directory.join("config.xml"),
        )?;
        write_users(&directory, &[])?;
        let local = Server { directory, http_port, native_port, time_zone: None, process: None };
        Ok(Self { url: format!("http://127.0.0.1:{http_port}"), local: Some(local) })
    }

    /// Writes the users file of a local server again: the services' users, the readers of views and these users. Must
    /// be called before the server starts, because the server reads its users only at start. Does nothing for an
    /// external server.
    pub fn declare_users(&self, users: &[User]) -> anyhow::Result<()> {
        let Some(server) = &self.local else { return Ok(()) };
        write_users(&server.directory, users)
    }

    /// Sets the time zone that a local server starts in.
    pub fn set_time_zone(&mut self, name: &'static str) {
        if let Some(server) = &mut self.local {
            server.time_zone = Some(name);
        }
    }

    /// The HTTP address for `CLICKHOUSE_URL`. It is known even while the server is down.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port of the native protocol, if the server is local.
    pub fn native_port(&self) -> Option<u16> {
        self.local.as_ref().map(|server| server.native_port)
    }

    /// The URL with which an analyst's client connects to the views in `database` over HTTP:
    /// `clickhouse://user:password@host:port/database`. `user` is [`BI_READER`] or [`BI_JDBC`]. Returns `None` if the
    /// server is external.
    pub fn bi_dsn(&self, user: &str, database: &str) -> Option<String> {
        let port = self.local.as_ref()?.http_port;
        Some(format!("clickhouse://{user}:{LOCAL_PASSWORD}@127.0.0.1:{port}/{database}"))
    }

    /// A client that has no default database.
    pub fn client(&self) -> Client {
        Client::default().with_url(&self.url)
    }

    /// Starts a local server and waits until it answers. After a stop, the server starts with the same ports and data
    /// again. An external server must already answer.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let ping = Ping::new(&self.url)?;
        match &mut self.local {
            Some(server) => server.start(&ping).await,
            None => {
                ensure!(
                    ping.is_answered().await,
                    "reach ClickHouse at {} (CLICKHOUSE_URL): `GET /ping` did not succeed",
                    self.url
                );
                Ok(())
            }
        }
    }

    /// Stops a local server cleanly. Does nothing for an external server.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let running = self.local.as_mut().and_then(|server| server.process.take());
        match running {
            Some(mut process) => {
                // The last statement on the server's command line reads standard input to its end. Then the server
                // exits.
                process.close_input();
                process.wait_for_exit(STOP_DEADLINE).await.map(drop)
            }
            None => Ok(()),
        }
    }

    /// Kills a local server with SIGKILL.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.process()?.kill9();
        Ok(())
    }

    /// The process that [`Self::start`] started, for its id, its log or a signal to it. Returns an error before a
    /// start, after [`Self::stop`], and for an external server.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        let running = self.local.as_mut().and_then(|server| server.process.as_mut());
        running.context("find the local ClickHouse: none is running")
    }
}

/// The comment at the top of the users file. The users have rights on patterns of database names, because each test may
/// use a database other than `millrace` for its tables, and a database `bi_…` for its views. In a deployment, the
/// rights name the configured databases instead: by default `millrace`, `bi`, and `bi_…` for single tenants.
const ABOUT: &str =
    "Users of a local stack, with rights on the databases of all tests and a password for this machine only.";

/// Writes the users file: the services' users and the readers of views, with rights on the databases of all tests, and
/// the users in `more`.
fn write_users(directory: &Path, more: &[User]) -> anyhow::Result<()> {
    let scope = DatabaseScope::any();
    let always = access::services(&scope).into_iter().chain(access::readers(&scope));
    let users: Vec<_> = always.chain(more.iter().cloned()).collect();
    let path = directory.join("users.xml");
    let text = xml::file(ABOUT, &users, xml::LoginSource::Local(LOCAL_PASSWORD));
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

impl Server {
    async fn start(&mut self, ping: &Ping) -> anyhow::Result<()> {
        ensure!(
            self.process.as_mut().is_none_or(|p| p.exited().is_some()),
            "start ClickHouse: it is already running"
        );
        let mut command = Command::new(binaries::find("devstack")?);
        command
            .arg(SUBCOMMAND)
            .arg(process::id().to_string())
            .arg(cache::clickhouse_library()?)
            .arg(argument("--path", &self.directory.join("data")))
            .arg(argument("--config-file", &self.directory.join("config.xml")))
            .args(["--log-level=error", "--listen_host=127.0.0.1"])
            .arg(format!("--http_port={}", self.http_port))
            .arg(format!("--tcp_port={}", self.native_port))
            // The last statement reads the server's standard input, so the statement ends, and with it the server, when
            // this process closes that input.
            .args(["--input-format=LineAsString", "--structure=line String", "--query"])
            .arg("SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; SELECT count() FROM table");
        command.envs(self.time_zone.map(|name| ("TZ", name)));
        let process = Process::start("ClickHouse", command, &self.directory.join("clickhouse.log"))?;
        let process = self.process.insert(process);
        let what = format!("answer on port {}", self.http_port);
        process.wait_until(&what, START_DEADLINE, async || ping.is_answered().await).await?;
        Ok(())
    }
}

fn argument(name: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(format!("{name}="));
    argument.push(path);
    argument
}

/// Checks whether a server answers.
struct Ping {
    http: reqwest::Client,
    url: String,
}

impl Ping {
    fn new(server: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(PING_TIMEOUT).build().context("make an HTTP client")?;
        Ok(Self { http, url: format!("{}/ping", server.trim_end_matches('/')) })
    }

    async fn is_answered(&self) -> bool {
        self.http.get(&self.url).send().await.is_ok_and(|answer| answer.status().is_success())
    }
}
