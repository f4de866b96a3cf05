//! `./dev` reports a wrong command or flag in one line, and each missing tool in a line of its own, before it builds or
//! starts anything.
#![expect(clippy::unwrap_used, reason = "a panic with its line is the best report a test can give")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use devstack::DataDirectory;

#[test]
fn a_typo_is_reported_with_the_commands_or_flags_that_exist() {
    check(
        &["tset"],
        2,
        "./dev: unknown command `tset`: there are `up`, `test`, `chaos`, `bench`, `steps`, `mutants`, `fuzz` and `help`\n",
    );
    check(&["up", "--dmo"], 2, "./dev: unknown flag `--dmo`: `./dev up` takes --demo or --fresh\n");
    check(&["test", "--ful"], 2, "./dev: unknown flag `--ful`: `./dev test` takes --full\n");
    check(&["steps", "--wrok=lean"], 2, "./dev: unknown flag `--wrok`: `./dev steps` takes --work\n");
    check(
        &["tset", "--help"],
        2,
        "./dev: unknown command `tset`: there are `up`, `test`, `chaos`, `bench`, `steps`, `mutants`, `fuzz` and `help`\n",
    );
    check(
        &["chaos", "--sed=1"],
        2,
        "./dev: unknown flag `--sed`: `./dev chaos` takes --seconds or --seed or --json or --event-ids or --spool or --long\n",
    );
}

#[test]
fn every_command_has_a_help_page_and_a_line_in_the_overview() {
    let page = |arguments: &[&str]| {
        let output = dev().args(arguments).env("PATH", "/usr/bin:/bin").output().unwrap();
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let all = page(&["--help"]);
    assert_eq!([page(&[]), page(&["help"]), page(&["-h"])], [all.as_str(); 3]);
    for command in ["up", "test", "chaos", "bench", "steps", "mutants", "fuzz"] {
        let lines = all.lines().filter(|line| line.trim_start().starts_with(&format!("{command} ")));
        assert_eq!(lines.count(), 1, "{command} in\n{all}");
        let own = page(&[command, "--help"]);
        assert!(own.starts_with(&format!("./dev {command}")), "{own}");
        assert_eq!(page(&["help", command]), own);
    }
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
    let lines = stderr(&output);
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
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(status), expected));
}

/// A command that runs the script `./dev` in the directory `/`. It removes `KAFKA_BROKERS` and `CLICKHOUSE_URL` from
/// the environment, because with them the script would use those servers instead of local ones.
fn dev() -> Command {
    let mut command = Command::new("/bin/bash");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("dev");
    command.arg(script).current_dir("/").env_remove("KAFKA_BROKERS").env_remove("CLICKHOUSE_URL");
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
