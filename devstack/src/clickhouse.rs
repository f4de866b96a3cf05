//! ClickHouse: a server of our own, or the one that the environment names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use ::clickhouse::Client;
use anyhow::{Context, ensure};

use crate::process::Process;
use crate::template::render;
use crate::{binaries, cache};

/// From the start of the process to the first answer.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// From the request to end to the end.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// One look whether it answers.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Who reads the views of analysts on a server of ours, and nothing else.
pub const BI_READER: &str = "bi_reader";
/// The same for drivers that change settings, such as JDBC's.
pub const BI_JDBC: &str = "bi_jdbc";
/// The password of every user of `users.xml` that has one, on this machine only.
pub const LOCAL_PASSWORD: &str = "local";

/// The hidden subcommand of `devstack` that is the server.
const SUBCOMMAND: &str = "clickhouse-server";

/// A server, ours or given.
#[derive(Debug)]
pub struct ClickHouse {
    url: String,
    local: Option<Server>,
}

/// A server of our own.
#[derive(Debug)]
struct Server {
    directory: PathBuf,
    http_port: u16,
    native_port: u16,
    /// As the variable `TZ` names it.
    time_zone: Option<&'static str>,
    process: Option<Process>,
}

impl ClickHouse {
    /// A server that somebody else runs.
    pub fn given(url: &str) -> Self {
        Self { url: url.to_owned(), local: None }
    }

    /// A server with its data in `directory`, to answer on these ports once it is started.
    pub fn prepare(directory: PathBuf, http_port: u16, native_port: u16) -> anyhow::Result<Self> {
        let path = directory.to_str().context("read the data directory's name as text")?;
        render(
            include_str!("../config/clickhouse.xml"),
            &[("directory", path)],
            &directory.join("config.xml"),
        )?;
        write_users(&directory, "")?;
        let local = Server { directory, http_port, native_port, time_zone: None, process: None };
        Ok(Self { url: format!("http://127.0.0.1:{http_port}"), local: Some(local) })
    }

    /// Creates the user `definer`, who cannot log in and may do what `grants` say, once a server of ours is started: the
    /// library reads its users only then. A given server is left alone.
    pub fn define(&self, definer: &str, grants: &[String]) -> anyhow::Result<()> {
        let Some(server) = &self.local else { return Ok(()) };
        let grants: String = grants.iter().map(|grant| format!("<query>{grant}</query>")).collect();
        let user = format!("<{definer}><no_password/><networks/><grants>{grants}</grants></{definer}>");
        write_users(&server.directory, &user)
    }

    /// Has a server of ours stand in a time zone, once it is started.
    pub fn in_time_zone(&mut self, name: &'static str) {
        if let Some(server) = &mut self.local {
            server.time_zone = Some(name);
        }
    }

    /// The HTTP address: the value of `CLICKHOUSE_URL`. Known also while the server is down.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port of the native protocol, if the server is ours.
    pub fn native_port(&self) -> Option<u16> {
        self.local.as_ref().map(|server| server.native_port)
    }

    /// How `user`, one of [`BI_READER`] and [`BI_JDBC`], reaches the views in `database` over HTTP:
    /// `clickhouse://user:password@host:port/database`. None if the server is not ours.
    pub fn bi_dsn(&self, user: &str, database: &str) -> Option<String> {
        let port = self.local.as_ref()?.http_port;
        Some(format!("clickhouse://{user}:{LOCAL_PASSWORD}@127.0.0.1:{port}/{database}"))
    }

    /// A client; add a database to it.
    pub fn client(&self) -> Client {
        Client::default().with_url(&self.url)
    }

    /// Starts the server, on the same ports and data as before, and waits until it
    /// answers. A given server must answer too.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let ping = Ping::new(&self.url)?;
        match &mut self.local {
            Some(server) => server.start(&ping).await,
            None => {
                ensure!(
                    ping.answered().await,
                    "reach ClickHouse at {} (CLICKHOUSE_URL): no answer",
                    self.url
                );
                Ok(())
            }
        }
    }

    /// Ends the server cleanly. A given server is left alone.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let running = self.local.as_mut().and_then(|server| server.process.take());
        match running {
            Some(mut process) => {
                // The server reads its input as its last query, and ends after it.
                process.close_input();
                process.ended(STOP_DEADLINE).await.map(drop)
            }
            None => Ok(()),
        }
    }

    /// `kill -9`. A given server cannot be killed.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.process()?.kill9();
        Ok(())
    }

    /// The running server, for its id, its log or a signal to it.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        let running = self.local.as_mut().and_then(|server| server.process.as_mut());
        running.context("find the local ClickHouse: none is running")
    }
}

fn write_users(directory: &Path, definer: &str) -> anyhow::Result<()> {
    let values = [("password", LOCAL_PASSWORD), ("definer", definer)];
    render(include_str!("../config/users.xml"), &values, &directory.join("users.xml"))
}

impl Server {
    async fn start(&mut self, ping: &Ping) -> anyhow::Result<()> {
        ensure!(
            self.process.as_mut().is_none_or(|p| p.exited().is_some()),
            "start ClickHouse: it is running"
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
            // A query that ends when our end of its standard input is closed.
            .args(["--input-format=LineAsString", "--structure=line String", "--query"])
            .arg("SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; SELECT count() FROM table");
        command.envs(self.time_zone.map(|name| ("TZ", name)));
        let process = Process::start("ClickHouse", command, &self.directory.join("clickhouse.log"))?;
        let process = self.process.insert(process);
        let what = format!("answer on port {}", self.http_port);
        process.until(&what, START_DEADLINE, async || ping.answered().await).await?;
        Ok(())
    }
}

fn argument(name: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(format!("{name}="));
    argument.push(path);
    argument
}

/// Asks a server whether it is there.
struct Ping {
    http: reqwest::Client,
    url: String,
}

impl Ping {
    fn new(server: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(PING_TIMEOUT).build().context("make an HTTP client")?;
        Ok(Self { http, url: format!("{}/ping", server.trim_end_matches('/')) })
    }

    async fn answered(&self) -> bool {
        self.http.get(&self.url).send().await.is_ok_and(|answer| answer.status().is_success())
    }
}
