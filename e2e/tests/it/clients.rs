//! The lines that `docs/clients.md` shows to client teams do what it says.

use std::process::Command;

use devstack::{python, wait_for};
use runtime::vars::Vars;

use crate::world::{DEADLINE, World};

const PAGE: &str = include_str!("../../../docs/clients.md");
/// The address on the page.
const ADDRESS: &str = "https://events.example.com";

/// The code blocks in a language, with the edge's address.
fn blocks(language: &str, edge: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let after_fences = PAGE.split(&fence).skip(1);
    after_fences.map(|rest| rest.split("```").next().unwrap().replace(ADDRESS, edge)).collect()
}

/// Runs a program in the world's directory. Returns what it prints.
fn run(world: &World, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(world.directory()).output();
    let output = output.unwrap_or_else(|error| panic!("run {program}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_for_clients_are_accepted_and_counted() {
    let world = World::new("clients").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let address = edge.service.http();
    let (shell, scripts, programs) =
        (blocks("sh", &address), blocks("js", &address), blocks("python", &address));
    assert_eq!((shell.len(), scripts.len(), programs.len()), (2, 1, 1));
    let reports: String = shell.iter().map(|block| run(&world, "bash", &["-euc", block])).collect();
    assert!(reports.contains(r#""accepted":1,"#) && reports.contains(r#""accepted":2,"#), "{reports}");
    assert_eq!(run(&world, "node", &["--input-type=module", "--eval", &scripts[0]]), "2\n");
    let python = python::find(&Vars::from_env()).unwrap();
    assert_eq!(run(&world, python.to_str().unwrap(), &["-c", &programs[0]]), "3\n");

    let counted =
        "SELECT event, sum(events) FROM rollup.event_hourly WHERE tenant != '' GROUP BY event ORDER BY event";
    let expected = [["from_curl", "3"], ["from_javascript", "2"], ["from_python", "3"]];
    let waited = wait_for("all to be counted", DEADLINE, async || world.rows(counted).await == expected);
    waited.await.unwrap();
}
