//! The query API's web page in a browser: how soon the page shows numbers, and how much CPU time an open page costs the
//! query API.
//!
//! Events arrive during the measurement, so that a page has new numbers in each refresh. The browser shares the machine
//! with the servers.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use devstack::{Service, page, usage};
use runtime::vars::Vars;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time;
use tokio_util::task::AbortOnDropHandle;

use crate::input::{Work, requests};
use crate::load::Load;
use crate::plan::Plan;
use crate::progress;
use crate::report::goals::Bound::AtMost;
use crate::report::goals::Goal;
use crate::report::table::Spread;
use crate::servers::World;
use crate::servers::world::addr;

/// Requests a second that arrive at the edge.
const RATE: f64 = 5.0;
/// Number of pages that are open when the query API's CPU time is counted for the second time.
const PAGES: usize = 5;
/// Number of times that the page is loaded. The browser's cache is empty before each load.
const LOADS: usize = 5;
/// Longest wait for the browser.
const DEADLINE: Duration = Duration::from_secs(60);

/// Returns the figures that have goals, or no figures if Chromium is not installed. Counts the query API's CPU time
/// first without open pages and then with open pages, each time for `plan.window`.
pub(super) async fn measure(plan: &Plan, world: &World, api: &mut Service) -> anyhow::Result<Vec<Goal>> {
    let chromium = match page::chromium(&Vars::from_env()) {
        Ok(chromium) => chromium,
        Err(error) => {
            progress::print(&format!("page: not measured: {error:#}"));
            return Ok(Vec::new());
        }
    };
    let mut edge = world.service("ingest").await?;
    let load = Load {
        addr: addr(&edge)?,
        connections: 1,
        rate: Some(RATE),
        requests: requests::batches(Work::Lean),
    };
    let longest = 2 * plan.window + 2 * DEADLINE;
    let arriving = AbortOnDropHandle::new(tokio::spawn(async move { load.run(longest).await }));
    let process = api.process().id();
    let cores = async || {
        let before = usage::seconds(process)?;
        time::sleep(plan.window).await;
        anyhow::Ok((usage::seconds(process)? - before) / plan.window.as_secs_f64())
    };
    progress::print("page: measuring the query API without open pages");
    let without = cores().await?;
    progress::print(&format!("page: loading the page {LOADS} times"));
    let mut browser = Browser::start(&chromium, &api.http())?;
    let times: Vec<f64> =
        serde_json::from_str(&browser.line().await?).context("read the load times of the page")?;
    ensure!(browser.line().await? == "open", "the browser did not open its pages");
    progress::print(&format!("page: measuring the query API with {PAGES} open pages"));
    let with = cores().await?;
    browser.close().await?;
    ensure!(!arriving.is_finished(), "the load ended before the pages were measured");
    drop(arriving);
    edge.terminate().await?;
    let goal = |what: String, measured, most| Goal { number: "page", what, measured, bound: AtMost(most) };
    Ok(vec![
        goal(
            "first number on the screen, median of loads, in ms".to_owned(),
            Spread::of(times.into_iter()).median,
            1000.0,
        ),
        goal(
            "an open page, in per cent of a core of query-api".to_owned(),
            (with - without) / PAGES as f64 * 100.0,
            1.0,
        ),
    ])
}

/// The browser and the script that drives it.
struct Browser {
    script: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    fn start(chromium: &Path, url: &str) -> anyhow::Result<Self> {
        let mut script = Command::new("node")
            .arg(page::tool("tests/cost.mjs")?)
            .args([url, &LOADS.to_string(), &PAGES.to_string()])
            .env("CHROMIUM", chromium)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start node (apt install nodejs)")?;
        let lines = BufReader::new(script.stdout.take().context("read the script's output")?).lines();
        Ok(Self { script, lines })
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let line =
            time::timeout(DEADLINE, self.lines.next_line()).await.context("wait for the browser")??;
        line.context("the browser's script ended early; its message is above")
    }

    async fn close(mut self) -> anyhow::Result<()> {
        let mut input = self.script.stdin.take().context("write to the script")?;
        input.write_all(b"\n").await?;
        let status = time::timeout(DEADLINE, self.script.wait()).await.context("wait for the browser")??;
        ensure!(status.success(), "the browser's script failed: {status}");
        Ok(())
    }
}
