//! Every example of docs/query.md runs, and its answer has the members that the page shows.

use std::path::Path;
use std::process::Command;

use schemas::time::{HOUR, UnixMillis};

use super::query::count_more;
use crate::oracle::{Oracle, TestEvent, now};
use crate::world::World;

/// A block of commands, and the answer that the page shows below the block, if any.
struct Example {
    commands: String,
    answer: Option<String>,
}

/// The examples of a page: blocks of `sh`, each with the block of `json` that directly follows it, if any.
fn examples(page: &str) -> Vec<Example> {
    let mut examples = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("```sh\n") {
        let (commands, after) = after.split_once("```\n").unwrap();
        let shown =
            after.strip_prefix("```json\n").map(|block| block.split_once("```").unwrap().0.to_owned());
        examples.push(Example { commands: commands.to_owned(), answer: shown });
        rest = after;
    }
    examples
}

/// The names of the members in a block of JSON. The block need not be valid JSON: the page leaves out some values.
fn members(json: &str) -> Vec<&str> {
    let quoted: Vec<_> = json.split('"').collect();
    let is_name = |at: &usize| quoted[at + 1].starts_with(':');
    (1..quoted.len()).step_by(2).filter(is_name).map(|at| quoted[at]).collect()
}

/// Runs a block of commands against `address`. Returns what the block prints, and the HTTP status of each answer.
fn run(commands: &str, address: &str, directory: &Path) -> (String, Vec<String>) {
    // This shell function replaces `curl` in the examples and appends the status of each answer to the file `statuses`.
    // The status does not go to standard output, because an example may redirect the standard output to a file.
    let curl = "curl() { command curl -sS -w '%{stderr}%{http_code}\\n' \"$@\" 2>>statuses; }\n";
    let script = format!("set -e\n{curl}{}", commands.replace("http://localhost:8080", address));
    std::fs::write(directory.join("statuses"), "").unwrap();
    let ran = Command::new("bash").args(["-c", &script]).current_dir(directory).output().unwrap();
    assert!(ran.status.success(), "{commands}{}", String::from_utf8_lossy(&ran.stderr));
    let statuses = std::fs::read_to_string(directory.join("statuses")).unwrap();
    (String::from_utf8(ran.stdout).unwrap(), statuses.lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn every_example_on_the_query_page_gives_the_answer_on_the_page() {
    let world = World::new("query_page").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    // In each of these hours, seven countries have an event, which is more than the highest `top` in the examples, so
    // that the answers have a row `others`. The examples query the current time and November 2026.
    let mut rng = fastrand::Rng::with_seed(5);
    let hours = [now(), UnixMillis(now().0 - HOUR), UnixMillis::parse("2026-11-10 12:00:00").unwrap()];
    let events: Vec<_> = hours
        .into_iter()
        .flat_map(|time| ["DE", "US", "BR", "IN", "FR", "IT", "ES"].map(|country| (time, country)))
        .map(|(time, country)| TestEvent { country: country.to_owned(), ..TestEvent::random(&mut rng, time) })
        .collect();
    count_more(&world, &edge.http, &mut Oracle::default(), &events).await;

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/query.md");
    let examples = examples(&std::fs::read_to_string(page).unwrap());
    assert!(examples.len() >= 10, "docs/query.md has only {} examples", examples.len());
    for Example { commands, answer } in examples {
        let (text, statuses) = run(&commands, api.http.base(), world.directory());
        let shown = answer.as_deref().unwrap_or_default();
        let status = shown.split_once(r#""status":"#).map_or("200", |(_, rest)| &rest[..3]);
        assert!(
            !statuses.is_empty() && statuses.iter().all(|found| found == status),
            "{commands}{statuses:?} {text}"
        );
        for member in members(shown) {
            assert!(
                text.contains(&format!("\"{member}\":")),
                "no {member} in the answer to {commands}{text}"
            );
        }
    }
}
