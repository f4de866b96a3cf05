//! What the README shows is what a newcomer sees.
#![expect(clippy::unwrap_used, reason = "a panic with its line is the best report a test can give")]
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use devstack::DataDirectory;
use devstack::process::Process;

const README: &str = include_str!("../../README.md");
const DEADLINE: Duration = Duration::from_secs(90);

/// The blocks of code between two headings, each with its language.
fn blocks(from: &str, to: &str) -> Vec<(&'static str, &'static str)> {
    let section = README.split(from).nth(1).unwrap().split(to).next().unwrap();
    let fenced = section.split("```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').unwrap()).collect()
}

/// An answer as the README shows it: in one line, without the id that no two requests share.
fn without_request_id(answer: &str) -> String {
    let answer = answer.replace('\n', "");
    let Some((before, rest)) = answer.split_once("\"request_id\":\"") else { return answer };
    let (_, after) = rest.split_once('"').unwrap();
    format!("{before}\"request_id\":\"…\"{after}")
}

#[tokio::test]
async fn the_quick_start_of_the_readme_answers_as_the_readme_says() {
    let directory = DataDirectory::for_test("readme").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_devstack"));
    command.arg("up").arg("--data").arg(directory.path().join("data"));
    let mut up = Process::start("devstack up", command, &directory.path().join("up.log")).unwrap();
    let log = up.log().to_owned();
    let page = || fs::read_to_string(&log).unwrap_or_default();
    up.wait_until("be ready", DEADLINE, async || page().contains("Millrace is ready")).await.unwrap();
    let page = page();
    let word = |start: &str| page.split_whitespace().find(|word| word.starts_with(start)).unwrap();
    let front = word("http://localhost:").strip_prefix("http://").unwrap();
    let views = word("clickhouse://bi_reader:").split_once('@').unwrap().1.strip_suffix("/bi").unwrap();

    let blocks = blocks("## Quick start", "\n## ");
    let commands = blocks
        .iter()
        .enumerate()
        .filter(|(_, (language, text))| *language == "sh" && !text.starts_with("./dev"));
    let mut compared = 0;
    for (at, (_, text)) in commands {
        let text = text.replace("localhost:8080", front).replace("127.0.0.1:18123", views);
        let output = Command::new("bash").args(["-euo", "pipefail", "-c", &text]).output().unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}: {answer}{}", String::from_utf8_lossy(&output.stderr));
        assert!(!answer.trim().is_empty(), "{text} prints nothing");
        if let Some((_, shown)) = blocks.get(at + 1).filter(|(language, _)| *language != "sh") {
            assert_eq!(without_request_id(&answer), shown.replace('\n', "").trim_end(), "{text}");
            compared += 1;
        }
    }
    assert_eq!(compared, 3, "the README shows what is answered to a POST, a GET and a statement");
    assert!(up.terminate(DEADLINE).await.unwrap().success());
}
