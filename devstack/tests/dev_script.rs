//! `./dev` says what is wrong in one line, before anything is built or started.
#![expect(clippy::unwrap_used, reason = "a panic with its line is the best report a test can give")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use devstack::DataDirectory;

#[test]
fn a_typo_is_told_what_there_is() {
    check(
        &["tset"],
        2,
        "./dev: unknown command `tset`: there are `up`, `test`, `chaos`, `bench`, `steps`, `mutants`, `fuzz` and `help`\n",
    );
    check(&["up", "--dmo"], 2, "./dev: unknown flag `--dmo`: `./dev up` takes --demo or --fresh\n");
    check(&["test", "--ful"], 2, "./dev: unknown flag `--ful`: `./dev test` takes --full\n");
    check(
        &["chaos", "--sed=1"],
        2,
        "./dev: unknown flag `--sed`: `./dev chaos` takes --seconds or --seed or --json or --event-ids or --spool or --long or --help\n",
    );
}

#[test]
fn every_missing_tool_is_named_with_its_remedy() {
    let directory = DataDirectory::for_test("missing_tools").unwrap();
    for tool in ["dirname", "sed"] {
        let path =
            ["/usr/bin", "/bin"].map(|home| Path::new(home).join(tool)).into_iter().find(|p| p.exists());
        symlink(path.unwrap(), directory.path().join(tool)).unwrap();
    }
    let output = dev().arg("up").env("PATH", directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines = complaint(&output);
    for tool in ["cargo", "cc", "make", "perl", "java 17 or newer", "mvn", "npm"] {
        let naming = lines.lines().filter(|line| line.starts_with(&format!("missing: {tool}, which ")));
        assert_eq!(naming.count(), 1, "{tool} in\n{lines}");
    }
    assert_eq!(lines.lines().count(), 7, "{lines}");
}

#[test]
fn the_lock_file_names_hashes_and_no_addresses() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("package-lock.json");
    let lock = fs::read_to_string(lock).unwrap();
    assert!(lock.contains("\"integrity\"") && !lock.contains("\"resolved\""));
}

#[track_caller]
fn check(arguments: &[&str], status: i32, expected: &str) {
    let output = dev().args(arguments).output().unwrap();
    assert_eq!((output.status.code(), complaint(&output).as_str()), (Some(status), expected));
}

/// The script, from a directory that is not its own, with local servers wanted.
fn dev() -> Command {
    let mut command = Command::new("/bin/bash");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("dev");
    command.arg(script).current_dir("/").env_remove("KAFKA_BROKERS").env_remove("CLICKHOUSE_URL");
    command
}

fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
