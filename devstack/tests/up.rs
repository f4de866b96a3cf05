//! Starts and stops `devstack up` as a person does.
#![expect(clippy::unwrap_used, reason = "a panic with its line is the best report a test can give")]
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use devstack::process::Process;
use devstack::{DataDirectory, wait_for};

const DEADLINE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn killing_devstack_up_also_ends_kafka_and_clickhouse() {
    let directory = DataDirectory::for_test("killed_parent").unwrap();
    let mut up = up(&directory, &[]);
    let parent = up.id();
    let mut children = Vec::new();
    up.wait_until("run Kafka and ClickHouse", DEADLINE, async || {
        children = ["kafka.Kafka", "clickhouse-server"].map(|program| child(parent, program)).to_vec();
        children.iter().all(Option::is_some)
    })
    .await
    .unwrap();

    up.kill9();

    wait_for("both children to exit", DEADLINE, async || !children.iter().flatten().any(|id| is_alive(*id)))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_demo_increases_the_counts_and_ctrl_c_prints_what_was_stored() {
    let directory = DataDirectory::for_test("demo").unwrap();
    let mut up = up(&directory, &["--demo"]);
    let log = up.log().to_owned();
    up.wait_until("be ready", DEADLINE, async || text(&log).contains("Millrace is ready")).await.unwrap();
    let page = text(&log);
    let front = page.split_whitespace().find(|word| word.starts_with("http://localhost:")).unwrap();

    let url = || format!("{front}analytics?timestamp={}", now_ms());
    let first = numbers(&url()).await;
    up.wait_until("show growing numbers", Duration::from_secs(60), async || {
        let later = numbers(&url()).await;
        // The counts grow slowly: the demo sends about one event every two seconds, only a few events are clicks, and
        // the aggregator also has to store two weeks of history.
        later.len() == 3 && later.iter().zip(&first).any(|(later, first)| later > first)
    })
    .await
    .unwrap();

    let views = page.split_whitespace().find(|word| word.starts_with("clickhouse://bi_reader:")).unwrap();
    let server = views.strip_prefix("clickhouse").unwrap().strip_suffix("/bi").unwrap();
    let address = format!("http{server}/?database=bi");
    let query = reqwest::Client::new().post(&address).body("SELECT sum(events) FROM event_minutely").send();
    let events = query.await.unwrap().text().await.unwrap();
    assert!(events.trim().parse::<u64>().is_ok_and(|events| events > 0), "{address}: {events}");

    let second = Command::new(env!("CARGO_BIN_EXE_devstack"))
        .args(["up", "--data"])
        .arg(directory.path().join("data"))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let complaint = String::from_utf8(second.stderr).unwrap();
    assert!(complaint.lines().count() == 1 && complaint.contains("another process uses it"), "{complaint}");

    let status = up.terminate(DEADLINE).await.unwrap();
    assert!(status.success(), "{status}: {}", up.log_tail());
    let last = text(&log);
    let stored = last.lines().find(|line| line.contains(" events accepted, ")).unwrap();
    let counts: Vec<u64> = stored.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(counts[0] > 0 && counts.iter().all(|count| *count == counts[0]), "{stored}");
}

/// Starts `devstack up`, which writes its data and its output below `directory`.
fn up(directory: &DataDirectory, flags: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devstack"));
    command.arg("up").args(flags).arg("--data").arg(directory.path().join("data"));
    Process::start("devstack up", command, &directory.path().join("up.log")).unwrap()
}

/// The child of `parent` that runs `program`.
fn child(parent: u32, program: &str) -> Option<u32> {
    let ids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.into_iter().find(|id| {
        let command_line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command_line).split('\0').any(|word| word == program)
            && stat(*id).is_some_and(|(_, its_parent)| its_parent == parent)
    })
}

/// Whether a process runs. A zombie does not: it has exited, and waits to be reaped.
fn is_alive(id: u32) -> bool {
    stat(id).is_some_and(|(state, _)| state != "Z")
}

/// State and parent of a process.
fn stat(id: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// The numbers in the answer of `GET /analytics`, in their order; none if there is no answer.
async fn numbers(url: &str) -> Vec<u64> {
    let Ok(answer) = reqwest::get(url).await else { return Vec::new() };
    let text = answer.text().await.unwrap_or_default();
    text.lines().filter_map(|line| line.split_once(',')?.1.parse().ok()).collect()
}

fn text(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}
