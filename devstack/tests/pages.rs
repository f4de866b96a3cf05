//! The examples in the documentation work: each block of shell commands runs, except those in [`NOT_RUN`]. If the next
//! block is JSON or text, the commands print what that block shows.
#![expect(clippy::unwrap_used, reason = "a panic with its line is the best report a test can give")]
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use devstack::process::Process;
use devstack::{DataDirectory, wait_for};

/// The pages, in the order in which their examples run. The README is first, because the counts that it shows are right
/// only if no other page has sent events. The page on rollups is last, because its examples change the views that other
/// pages read.
const PAGES: [(&str, &str); 7] = [
    ("README.md", include_str!("../../README.md")),
    ("api.md", include_str!("../../docs/api.md")),
    ("events.md", include_str!("../../docs/events.md")),
    ("edge.md", include_str!("../../docs/edge.md")),
    ("bi.md", include_str!("../../docs/bi.md")),
    ("operate.md", include_str!("../../docs/operate.md")),
    ("rollups.md", include_str!("../../docs/rollups.md")),
];
/// The blocks of shell commands that do not run, each with its page and the reason. On the page, the reason follows
/// [`NOT_RUN_MARK`] in the opening fence of the block, where readers of the rendered page do not see it.
const NOT_RUN: [(&str, &str); 5] = [
    ("README.md", "starts the stack"),
    ("edge.md", "needs a Kafka with TLS and a login"),
    ("operate.md", "needs Kafka's command line tools"),
    ("rollups.md", "restarts the stack"),
    ("rollups.md", "needs the restarted stack"),
];
const NOT_RUN_MARK: &str = "sh no-run: ";
/// The text of `schemas/rollups.toml`. Commands on the pages read the file by this relative path, so the test writes a
/// copy below the directory in which the commands run.
const ROLLUPS: &str = include_str!("../../schemas/rollups.toml");

const DEADLINE: Duration = Duration::from_secs(90);
/// Longest wait until a read shows earlier writes.
const VISIBLE_DEADLINE: Duration = Duration::from_secs(30);

/// A code block of a page: the info string after its opening fence, and its lines.
struct Block {
    info: String,
    text: String,
}

/// The code blocks of a page, including those that are indented because they belong to a list.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open_at = None;
    for line in page.lines() {
        let indent = line.len() - line.trim_start().len();
        match (open_at, line.trim_start().strip_prefix("```")) {
            (None, Some(info)) => {
                open_at = Some(indent);
                blocks.push(Block { info: info.to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => open_at = None,
            (Some(at), None) => {
                let text = &mut blocks.last_mut().unwrap().text;
                text.push_str(&line[at.min(indent)..]);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Whether `printed` is what a page shows. `…` on the page stands for any text, and line breaks do not matter.
fn is_as_shown(shown: &str, printed: &str) -> bool {
    let [shown, printed] = [shown, printed].map(|text| text.replace(['\n', '\r'], ""));
    let mut parts = shown.split('…');
    let start = parts.next().unwrap();
    let Some(end) = parts.next_back() else { return shown == printed };
    let rest = printed.strip_prefix(start);
    let rest = rest.and_then(|rest| parts.try_fold(rest, |rest, part| Some(rest.split_once(part)?.1)));
    rest.is_some_and(|rest| rest.ends_with(end))
}

/// The addresses of a running `devstack up`, read from its output.
struct Addresses {
    front: String,
    edge_admin: String,
    clickhouse: String,
    brokers: String,
}

impl Addresses {
    fn of(output: &str) -> Self {
        let line = |name: &str| output.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        let last = |name: &str| line(name).split_whitespace().next_back().unwrap();
        let views =
            output.split_whitespace().find(|word| word.starts_with("clickhouse://bi_reader:")).unwrap();
        let front = output.split_whitespace().find(|word| word.starts_with("http://localhost:")).unwrap();
        Self {
            front: front.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned(),
            edge_admin: last("ingest ")
                .strip_prefix("http://")
                .unwrap()
                .strip_suffix("/metrics")
                .unwrap()
                .to_owned(),
            clickhouse: views.split_once('@').unwrap().1.strip_suffix("/bi").unwrap().to_owned(),
            brokers: last("Kafka ").to_owned(),
        }
    }

    /// Runs commands of a page against this stack, with the workspace's programs in `PATH`. Returns what the commands
    /// print.
    fn run(&self, commands: &str, directory: &Path) -> String {
        let commands = commands
            .replace("localhost:8080", &self.front)
            .replace("localhost:9081", &self.edge_admin)
            .replace("127.0.0.1:18123", &self.clickhouse);
        let programs = Path::new(env!("CARGO_BIN_EXE_devstack")).parent().unwrap().display().to_string();
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &format!("PATH={programs}:$PATH\n{commands}")])
            .current_dir(directory)
            .env("KAFKA_BROKERS", &self.brokers)
            .env("CLICKHOUSE_URL", format!("http://{}", self.clickhouse))
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}: {printed}{complaints}");
        printed
    }
}

/// Whether `commands` certainly only read: they contain none of the words that are in every command that writes.
/// Commands that only read may run again until they print what the page shows.
fn only_read(commands: &str) -> bool {
    !["POST", "--data", "-d '{", "<<"].iter().any(|word| commands.contains(word))
}

#[tokio::test]
async fn the_examples_of_the_pages_print_what_the_pages_show() {
    let directory = DataDirectory::for_test("pages").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_devstack"));
    command.arg("up").arg("--data").arg(directory.path().join("data"));
    let mut up = Process::start("devstack up", command, &directory.path().join("up.log")).unwrap();
    let log = up.log().to_owned();
    let output = || fs::read_to_string(&log).unwrap_or_default();
    up.wait_until("be ready", DEADLINE, async || output().contains("Millrace is ready")).await.unwrap();
    let stack = Addresses::of(&output());
    let work = directory.path().join("work");
    fs::create_dir_all(work.join("schemas")).unwrap();
    fs::write(work.join("schemas/rollups.toml"), ROLLUPS).unwrap();

    let mut not_run = Vec::new();
    for (name, page) in PAGES {
        let blocks = blocks(page);
        let mut ran = 0;
        for (at, Block { info, text }) in blocks.iter().enumerate() {
            not_run.extend(info.strip_prefix(NOT_RUN_MARK).map(|reason| (name, reason.to_owned())));
            if info != "sh" {
                continue;
            }
            ran += 1;
            let mut printed = stack.run(text, &work);
            let Some(Block { text: shown, .. }) =
                blocks.get(at + 1).filter(|next| ["json", "text"].contains(&next.info.as_str()))
            else {
                continue;
            };
            let is_shown = wait_for("the answer", VISIBLE_DEADLINE, async || {
                if only_read(text) && !is_as_shown(shown, &printed) {
                    printed = stack.run(text, &work);
                }
                is_as_shown(shown, &printed) || !only_read(text)
            });
            let in_time = is_shown.await.is_ok();
            let is_shown = is_as_shown(shown, &printed);
            assert!(in_time && is_shown, "{name}: {text}shows:\n{shown}printed:\n{printed}");
        }
        assert!(ran > 0, "{name}: no example runs");
    }
    let listed: Vec<_> = NOT_RUN.into_iter().map(|(name, reason)| (name, reason.to_owned())).collect();
    assert_eq!(not_run, listed);
    assert!(up.terminate(DEADLINE).await.unwrap().success());
}

#[test]
fn only_an_ellipsis_on_a_page_stands_for_any_text() {
    for (shown, printed, is_shown) in [
        ("{\"id\":\"…\",\n\"n\":1}\n", "{\"id\":\"17\",\"n\":1}", true),
        ("{\"id\":\"…\",\n\"n\":1}\n", "{\"id\":\"17\",\"n\":2}", false),
        ("a…b…c", "axbyc", true),
        ("a…b…c", "axc", false),
        ("a", "ab", false),
        ("ab\n", "ab\r\n", true),
    ] {
        assert_eq!(is_as_shown(shown, printed), is_shown, "{shown} {printed}");
    }
}
