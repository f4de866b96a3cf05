//! The documentation is correct: generated pages are current, links have targets, the index names every page, and the
//! pages that people read first stay short. The committed bundle of the query API's web page is current too.

#![expect(clippy::unwrap_used, reason = "in a test a panic with its line is the best report")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::logging::LogConfig;
use runtime::metrics::MetricDescription;
use runtime::vars::{VarError, Vars};

/// The variables that have no default and must be set, each with a value for this test.
const REQUIRED: [(&str, &str); 2] = [("KAFKA_BROKERS", "host:9092"), ("CLICKHOUSE_URL", "http://host:8123")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares a generated page with its expected text. If the page is stale, rewrites the page and fails the test.
#[track_caller]
fn check_page(name: &str, page: &str) {
    let file = root().join("docs").join(name);
    if fs::read_to_string(&file).is_ok_and(|there| there == page) {
        return;
    }
    fs::write(&file, page).unwrap();
    panic!("docs/{name} was stale and has been rewritten; review the diff and commit it");
}

#[test]
fn the_configuration_page_lists_the_variables_that_the_programs_read() {
    type ReadConfig = fn(&Vars) -> Result<(), VarError>;
    let services: [(&str, ReadConfig); 3] = [
        ("ingest", |vars| ingest::Config::from_vars(vars).map(drop)),
        ("stream-agg", |vars| stream_agg::Config::from_vars(vars).map(drop)),
        ("query-api", |vars| query_api::Config::from_vars(vars).map(drop)),
    ];
    let mut page = "# Configuration

Generated from the sources; a test says when this page is stale, and writes it again.

Every program reads environment variables once, at its start, and checks all of them: an error names the
variable, its value and what would be right, and the exit code is 64. `--check-config` prints the resolved
values and what they add up to (memory, the longest stop, ports, addresses), and exits; with `--json` as JSON. Sizes
are bytes, or `64MiB`; times are `250ms`, `5s`, `10m` or `1day`.

`KAFKA_OPT_<name>` passes any setting to Kafka's client library, for example
`KAFKA_OPT_compression.type=zstd`; settings that a guarantee rests on are refused.
"
    .to_owned();
    for (service, read_config) in services {
        let vars = Vars::from_pairs(REQUIRED);
        LogConfig::from_vars(&vars).unwrap();
        read_config(&vars).unwrap();
        write!(page, "\n## {service}\n\n| variable | default | meaning |\n|---|---|---|\n").unwrap();
        let sources = [service, "runtime"].map(|folder| sources(&root().join(folder).join("src")));
        let mut meanings = BTreeMap::new();
        for (name, value) in vars.resolved() {
            let meaning = sources.iter().flatten().find_map(|source| meaning(source, &name));
            let meaning = meaning.unwrap_or_else(|| panic!("no doc comment of {service} documents `{name}`"));
            let other = meanings.insert(meaning.clone(), name.clone());
            assert!(other.is_none(), "`{name}` and {other:?} of {service} have the same meaning: {meaning}");
            let default = match value.as_str() {
                _ if REQUIRED.iter().any(|(required, _)| *required == name) => "required".to_owned(),
                "" => "none".to_owned(),
                value => format!("`{value}`"),
            };
            let meaning = meaning.replace('|', "\\|");
            writeln!(page, "| `{name}` | {default} | {meaning} |").unwrap();
        }
    }
    check_page("configuration.md", &page);
}

#[test]
fn the_metrics_page_lists_the_metrics_of_the_programs() {
    let services = [
        ("ingest", ingest::metrics::Metrics::new().descriptions),
        ("stream-agg", stream_agg::metrics::Metrics::default().descriptions),
        ("query-api", query_api::metrics::Metrics::new().descriptions),
    ];
    let mut page = "# Metrics

Generated from the programs; a test says when this page is stale, and writes it again.

Each program shows its metrics as Prometheus text under `/metrics` of its admin port.
[operate](operate.md) says what to alert on.
"
    .to_owned();
    for (service, mut metrics) in services {
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
        write!(page, "\n## {service}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n").unwrap();
        for MetricDescription { name, kind, labels, help } in metrics {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
        }
    }
    check_page("metrics.md", &page);
}

/// The texts of all Rust files below a folder except `tests.rs`, in the order of their paths.
fn sources(folder: &Path) -> Vec<String> {
    let mut files = files(folder, "rs");
    files.retain(|file| !file.ends_with("tests.rs"));
    files.iter().map(|file| read(file)).collect()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// The cell "meaning" of a variable in `docs/configuration.md`, from the doc comment of the variable in `source`. The
/// comment has the form ``<what it is>: `VARIABLE`, <values or bounds>, default <x>. <when to change it>``. The cell
/// does not repeat the default, because the table has a column for it.
fn meaning(source: &str, variable: &str) -> Option<String> {
    let lines: Vec<_> = source.lines().map(str::trim_start).collect();
    let comments = lines.split(|line| !line.starts_with("///"));
    let mut comments = comments.map(|comment| {
        let words = comment.iter().map(|line| line.trim_start_matches('/').trim());
        words.collect::<Vec<_>>().join(" ")
    });
    let declares = format!(": `{variable}`, ");
    let comment = comments.find(|comment| comment.contains(&declares))?;
    let (what, rest) = comment.split_once(&declares)?;
    let (values, advice) = rest.split_once(". ").unwrap_or((rest.trim_end_matches('.'), ""));
    let is_shown = |value: &&str| !value.starts_with("default ") && *value != "required";
    let values: Vec<_> = values.split(", ").filter(is_shown).collect();
    let are_bounds = values.iter().all(|value| value.starts_with("at ") || value.starts_with("below "));
    let values = match values.join(", ") {
        values if values.is_empty() => values,
        values if are_bounds => format!(" ({values})"),
        values => format!(": {values}"),
    };
    Some(format!("{what}{values}. {advice}").trim_end().to_owned())
}

/// The Markdown files at the root of the repository, and those in the folders with documentation, benchmark runs and
/// mutants.
fn pages() -> Vec<PathBuf> {
    let root = root();
    let top = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    let top = top.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let below = ["docs", "benches/runs", "e2e/mutants"].map(|folder| files(&root.join(folder), "md"));
    top.chain(below.into_iter().flatten()).collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut dead = Vec::new();
    for page in pages() {
        let mut in_code = false;
        for line in read(&page).lines() {
            in_code ^= line.trim_start().starts_with("```");
            for target in line.split("](").skip(1).filter(|_| !in_code) {
                let target = target.split([')', ' ', '#']).next().unwrap();
                let is_of_the_web = target.contains("://") || target.starts_with("mailto:");
                if !is_of_the_web && !page.parent().unwrap().join(target).exists() {
                    dead.push(format!("{}: {target}", page.display()));
                }
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn the_index_names_every_page() {
    let docs = root().join("docs");
    let index = read(&docs.join("README.md"));
    let pages = fs::read_dir(&docs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut missing: Vec<_> = pages
        .filter(|name| name.ends_with(".md") && name != "README.md")
        .filter(|name| !index.contains(&format!("]({name})")))
        .collect();
    missing.sort();
    assert!(missing.is_empty(), "docs/README.md does not name {missing:?}");
}

#[track_caller]
fn check_length(page: &str, words: usize) {
    let text = read(&root().join(page));
    let count = text.split_whitespace().count();
    assert!(count <= words, "{page} has {count} words, but at most {words} are allowed");
    let long: Vec<_> = (1..).zip(text.lines()).filter(|(_, line)| line.chars().count() > 100).collect();
    assert!(long.is_empty(), "{page} has lines of more than 100 columns: {long:?}");
}

#[test]
fn the_first_pages_stay_short() {
    check_length("README.md", 900);
    check_length("ARCHITECTURE.md", 2000);
}

#[test]
fn the_page_on_stopped_partitions_has_messages_of_the_aggregator() {
    let sources = ["stream-agg", "schemas"].map(|folder| sources(&root().join(folder).join("src")));
    // Joins each string literal that continues on the next line, so that a search finds a message that spans two lines.
    let source: String =
        sources.iter().flatten().flat_map(|source| source.split("\\\n").map(str::trim_start)).collect();
    let page = read(&root().join("docs/stopped-partitions.md"));
    let mut unknown = Vec::new();
    for message in page.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next()) {
        let texts = message.split('`').step_by(2);
        let fragments =
            texts.flat_map(|text| text.split(['…', 'N'])).map(|text| text.trim_matches([' ', ':']));
        unknown.extend(fragments.filter(|text| !source.contains(text)).map(str::to_owned));
    }
    assert!(unknown.is_empty(), "docs/stopped-partitions.md has texts that no message contains: {unknown:?}");
}

#[test]
fn the_tests_that_the_page_of_guarantees_names_exist() {
    let page = read(&root().join("docs/guarantees.md"));
    let section = page.split_once("## The tests that verify them").unwrap().1;
    let names = section.split('`').skip(1).step_by(2);
    let is_test =
        |name: &&str| name.contains('_') && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let names: Vec<_> = names.filter(is_test).collect();
    let tests =
        ["e2e/tests", "stream-agg/tests", "query-api/src"].map(|folder| files(&root().join(folder), "rs"));
    let tests: Vec<_> = tests.iter().flatten().map(|file| read(file)).collect();
    let is_there = |name: &str| tests.iter().any(|test| test.contains(&format!("fn {name}(")));
    let missing: Vec<_> = names.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "docs/guarantees.md names tests that do not exist: {missing:?}");
    for guarantee in 1..=7 {
        let row = format!("\n| {guarantee} |");
        assert!(section.contains(&row), "docs/guarantees.md names no test of guarantee {guarantee}");
    }
}

#[test]
fn the_pages_name_only_metrics_that_exist() {
    let metrics = read(&root().join("docs/metrics.md"));
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut unknown = Vec::new();
    for page in files(&root().join("docs"), "md") {
        let text = read(&page);
        let names = text.split(|c| !is_part(c));
        let is_metric = |name: &&str| {
            ["ingest_", "stream_agg_", "query_api_"].iter().any(|prefix| name.starts_with(prefix))
        };
        let names = names.filter(is_metric).filter(|name| !metrics.contains(&format!("| `{name}` |")));
        unknown.extend(names.map(|name| format!("{}: {name}", page.display())));
    }
    assert!(unknown.is_empty(), "pages name metrics that do not exist: {unknown:#?}");
}

#[test]
fn the_recipes_name_only_files_that_exist() {
    let page = read(&root().join("CONTRIBUTING.md"));
    let (_, recipes) = page.split_once("| change | files |").unwrap();
    let names = recipes.split('`').skip(1).step_by(2);
    let mut folder = root();
    let mut missing = Vec::new();
    for name in names.filter(|name| [".rs", ".md", ".toml"].iter().any(|end| name.ends_with(end))) {
        // A name with `/src/` is a path from the root of the repository. A name without it is relative to one of the
        // folders of the last such path: after `schemas/src/rollup/measure.rs`, the name `rollup/layout.rs` means
        // `schemas/src/rollup/layout.rs`.
        if name.contains("/src/") {
            folder = root().join(name);
        }
        if !name.contains('<') && !folder.ancestors().any(|folder| folder.join(name).exists()) {
            missing.push(name);
        }
    }
    assert!(missing.is_empty(), "CONTRIBUTING.md names files that do not exist: {missing:?}");
}

#[test]
fn the_bundle_of_the_page_is_built_from_its_sources() {
    let node = |script: &str, arguments: &[&Path]| {
        let script = devstack::page::tool(script).unwrap();
        let output = Command::new("node").arg(&script).args(arguments).output();
        let output = output.expect("run node, which `apt install nodejs` installs");
        let printed = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&printed));
    };
    let home = root().join("query-api/page");
    node("node_modules/typescript/bin/tsc", &[Path::new("--project"), &home]);
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bundle");
    node("build.mjs", &[&built]);
    for name in ["app.js", "app.css", "index.html"] {
        let (committed, built) = (home.join("dist").join(name), built.join(name));
        if fs::read(&committed).is_ok_and(|bytes| bytes == fs::read(&built).unwrap()) {
            continue;
        }
        fs::copy(&built, &committed).unwrap();
        panic!("{} was stale and has been built again; commit it", committed.display());
    }
}
