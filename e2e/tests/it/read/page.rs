//! The page in a real browser: it shows the numbers of the posted events, and the right age.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use devstack::{Stack, page};
use runtime::vars::Vars;
use schemas::time::{DAY, HOUR, MINUTE, UnixMillis};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::{task, time};

use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{Edge, World};

mod weeks;

/// Longest time that the browser's script may run.
const DEADLINE: Duration = Duration::from_secs(300);

/// A short interval, because the last step of the script shows the result of an audit.
const AUDITS: (&str, &str) = ("AUDIT_INTERVAL", "5s");

/// The default interval. An answer is stale if its `as_of` is more than three intervals ago, and the page shows stale
/// answers as late. With the short interval of other tests, fresh answers could become stale at once.
const INTERVAL: (&str, &str) = ("REFRESH_INTERVAL", "3s");

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_was_posted_and_how_old_it_is() {
    if time_left_of_the_day() < DEADLINE {
        // Waits for the next day: the expected results depend on the current day, which must not end during the run.
        time::sleep(time_left_of_the_day()).await;
    }
    let (mut stack, world) = World::on_own_servers("page").await;
    let edge = world.edge().await;
    let mut aggregator = world.start("stream-agg", &[AUDITS]);
    aggregator.wait_ready().await.unwrap();
    let mut api = world.start("query-api", &[INTERVAL]);
    api.wait_ready().await.unwrap();
    let mut posted = Posted { events: events(), weeks: weeks::events(now()), oracle: Oracle::default() };
    let screenshots = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");

    let mut browser = Command::new("node")
        .arg(page::tool("tests/browser.mjs").unwrap())
        .arg(api.http())
        .arg(&screenshots)
        .arg(expected(&posted))
        .env("CHROMIUM", page::chromium(&Vars::from_env()).unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node must be installed: apt install nodejs");
    // If this test ends early, the script's standard input is closed, and the script exits at its next request.
    let mut answer = browser.stdin.take().unwrap();
    let mut lines = lines(browser.stdout.take().unwrap());
    let run = async {
        while let Some(line) = lines.recv().await {
            print_line(&line);
            if let Some(what) = line.strip_prefix("do: ") {
                handle_request(what, &edge, &world, &mut stack, &mut posted).await;
                answer.write_all(b"done\n").unwrap();
            }
        }
    };
    time::timeout(DEADLINE, run).await.expect("the script ends before the deadline");
    let status = task::block_in_place(|| browser.wait()).unwrap();
    assert!(status.success(), "the script found a fault on the page; its output is above");
}

/// A channel with each line that the script prints.
fn lines(output: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[expect(clippy::print_stdout, reason = "shown if the test fails")]
fn print_line(line: &str) {
    println!("{line}");
}

fn time_left_of_the_day() -> Duration {
    let left = DAY - now().0.rem_euclid(DAY);
    Duration::from_millis(left.unsigned_abs())
}

/// The events that the test posts when the script asks for them: first `events`, later `weeks`. The oracle counts what
/// was posted so far.
struct Posted {
    events: Vec<TestEvent>,
    weeks: Vec<TestEvent>,
    oracle: Oracle,
}

impl Posted {
    async fn post(oracle: &mut Oracle, events: &[TestEvent], edge: &Edge, world: &World) {
        for some in events.chunks(500) {
            let text: Vec<_> = some.iter().map(TestEvent::line).collect();
            let lines: Vec<_> = some.iter().cloned().map(Some).collect();
            oracle.record_report(&edge.http.post_lines(&text).await, &lines);
        }
        world.assert_counted(&oracle.counts()).await;
    }
}

/// Does what the browser's script asks for in a line `do: …`.
async fn handle_request(what: &str, edge: &Edge, world: &World, stack: &mut Stack, posted: &mut Posted) {
    let Posted { events, weeks, oracle } = posted;
    match what {
        "post" => Posted::post(oracle, events, edge, world).await,
        "post weeks" => {
            Posted::post(oracle, weeks, edge, world).await;
            // The edge rejects this line and stores it as a sample.
            assert_eq!(edge.http.post_lines(&["not JSON".to_owned()]).await.status, 400);
        }
        "stop clickhouse" => stack.clickhouse.kill9().unwrap(),
        "start clickhouse" => stack.clickhouse.start().await.unwrap(),
        _ => panic!("unknown request of the script: `{what}`"),
    }
}

/// Events of the last hours, from some users in some countries.
fn events() -> Vec<TestEvent> {
    let end = now().floor(HOUR);
    let event = |number: i64| TestEvent {
        time: UnixMillis(end.0 - number * 7 * MINUTE),
        event: ["view", "view", "view", "signup", "purchase"][number as usize % 5].to_owned(),
        user: format!("user-{}", number % 23),
        country: ["DE", "US", "US", "BR"][number as usize % 4].to_owned(),
        device_os: ["android", "ios"][number as usize % 2].to_owned(),
        value: 1,
    };
    (0..150).map(event).collect()
}

/// The numbers that the page must show for the posted events, as JSON.
fn expected(Posted { events, weeks, .. }: &Posted) -> String {
    let mut countries = BTreeMap::<&str, usize>::new();
    for event in events {
        *countries.entry(&event.country).or_default() += 1;
    }
    let users: BTreeSet<_> = events.iter().map(|event| &event.user).collect();
    let filtered = json!({"country": "BR", "events": countries["BR"]});
    let expected = json!({
        "events": events.len(), "users": users.len(), "countries": countries, "filtered": filtered,
        "questions": weeks::answers(&[&events[..], weeks].concat(), now()),
    });
    expected.to_string()
}
