//! Every mutant is a patch that applies to the current code.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A mutant is a patch that breaks a rule of the code. Its first line names the test that must then fail. A patch that
/// no longer applies breaks nothing, so it cannot show that the test would fail. `./dev mutants` would notice this only
/// after it has built a copy of the workspace.
#[test]
fn every_mutant_applies_and_names_the_test_that_kills_it() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace");
    let mutants = fs::read_dir(top.join("e2e/mutants")).expect("read the folder of mutants");
    let mut patches: Vec<_> =
        mutants.map(|entry| entry.expect("read the folder of mutants").path()).collect();
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    assert!(!patches.is_empty());
    for patch in patches {
        let text = fs::read_to_string(&patch).expect("read a mutant");
        let killer = text.lines().next().and_then(|line| line.strip_prefix("# killed by: "));
        let (package, test) = killer.and_then(|killer| killer.split_once(' ')).unwrap_or_default();
        assert!(
            is_test(top, package, test),
            "{}: the first line must be `# killed by: PACKAGE TEST` and name an existing test, but is {:?}",
            patch.display(),
            text.lines().next().unwrap_or_default()
        );
        let check = Command::new("git").args(["apply", "--check"]).arg(&patch).current_dir(top).output();
        let check = check.expect("run git");
        let reason = String::from_utf8_lossy(&check.stderr);
        assert!(check.status.success(), "{} does not apply: {reason}", patch.display());
    }
}

/// Whether the sources contain a test function with this name. `package` is `pytest`, or a Rust package with or without
/// a test target, such as `e2e/it` or `ingest`. `test` is `file::test[parameter]` for `pytest`, and
/// `path::of::the::test` for a Rust package.
fn is_test(top: &Path, package: &str, test: &str) -> bool {
    let (path, name) = test.rsplit_once("::").unwrap_or(("", test));
    let (keyword, folder, name) = match name.split_once('[') {
        _ if package != "pytest" => ("fn", package.split('/').next().unwrap_or_default(), name),
        Some((name, _parameter)) => ("def", path, name),
        None => ("def", path, name),
    };
    let definition = format!("{keyword} {name}");
    let found =
        Command::new("git").args(["grep", "-qw", &definition, "--", folder]).current_dir(top).status();
    !name.is_empty() && found.expect("run git").success()
}
