//! The pages for people are true: what is generated from the code is current, links lead somewhere, the
//! index names every page, and the first pages stay short.

#![expect(clippy::unwrap_used, reason = "in a test a panic with its line is the best report")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::logging::LogConfig;
use runtime::metrics::MetricDescription;
use runtime::vars::{VarError, Vars};

/// Variables without a default, for a configuration to be read.
const REQUIRED: [(&str, &str); 2] = [("KAFKA_BROKERS", "host:9092"), ("CLICKHOUSE_URL", "http://host:8123")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Holds a generated page against what it must be, and writes it where it is stale.
#[track_caller]
fn check_page(name: &str, page: &str) {
    let file = root().join("docs").join(name);
    if fs::read_to_string(&file).is_ok_and(|there| there == page) {
        return;
    }
    fs::write(&file, page).unwrap();
    panic!("docs/{name} was stale; it is written again, commit it");
}

#[test]
fn the_page_of_variables_says_what_the_programs_read() {
    type ReadConfig = fn(&Vars) -> Result<(), VarError>;
    let services: [(&str, ReadConfig); 3] = [
        ("ingest", |vars| ingest::Config::from_vars(vars).map(drop)),
        ("stream-agg", |vars| stream_agg::Config::from_vars(vars).map(drop)),
        ("query-api", |vars| query_api::Config::from_vars(vars).map(drop)),
    ];
    let mut page = "# Configuration

Generated from the sources; a test says when this page is stale, and writes it again.

Every program reads environment variables once, at its start, and checks all of them: an error names the
variable, its value and what would be right. `--check-config` prints the resolved values and exits. Sizes
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
        for (name, value) in vars.resolved() {
            let meaning = sources.iter().flatten().find_map(|source| documented(source, &name));
            let meaning =
                meaning.unwrap_or_else(|| panic!("no doc comment says what `{name}` of {service} is"));
            let default = match value.as_str() {
                _ if REQUIRED.iter().any(|(required, _)| *required == name) => "required".to_owned(),
                "" => "none".to_owned(),
                value => format!("`{value}`"),
            };
            let meaning = without_default(&meaning, &name).replace('|', "\\|");
            writeln!(page, "| `{name}` | {default} | {meaning} |").unwrap();
        }
    }
    check_page("configuration.md", &page);
}

#[test]
fn the_page_of_metrics_says_what_the_programs_show() {
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

/// The texts of all Rust files below a folder, in the order of their paths.
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

/// The doc comment of `source` that names the variable, as one line.
fn documented(source: &str, variable: &str) -> Option<String> {
    let lines: Vec<_> = source.lines().map(str::trim_start).collect();
    let comments = lines.split(|line| !line.starts_with("///"));
    let comments = comments.map(|comment| {
        let words = comment.iter().map(|line| line.trim_start_matches('/').trim());
        words.collect::<Vec<_>>().join(" ")
    });
    let [plain, with_value] = [format!("`{variable}`"), format!("`{variable}=")];
    comments.into_iter().find(|comment| comment.contains(&plain) || comment.contains(&with_value))
}

/// A doc comment without its end, where that tells nothing but the variable and its default.
fn without_default(comment: &str, variable: &str) -> String {
    let Some((meaning, rest)) = comment.split_once(&format!(": `{variable}`, ")) else {
        return comment.to_owned();
    };
    let value = rest.strip_prefix("default ").unwrap_or(rest).trim_end_matches('.');
    let is_only_value = !value.contains([',', ';', ':']) && !value.contains(". ");
    let is_address = value.starts_with('`') && value.ends_with('`');
    if is_only_value || is_address || rest == "required." {
        format!("{meaning}.")
    } else {
        comment.to_owned()
    }
}

/// The pages of the repository: those at its root, and those for users and contributors.
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
    assert!(count <= words, "{page} has {count} words, and {words} at most");
    let long: Vec<_> = (1..).zip(text.lines()).filter(|(_, line)| line.chars().count() > 100).collect();
    assert!(long.is_empty(), "{page} has lines of more than 100 columns: {long:?}");
}

#[test]
fn the_first_pages_stay_short() {
    check_length("README.md", 900);
    check_length("ARCHITECTURE.md", 2000);
}

#[test]
fn the_messages_of_stopped_partitions_are_those_of_the_aggregator() {
    let sources = ["stream-agg", "schemas"].map(|folder| sources(&root().join(folder).join("src")));
    // A text that goes on in the next line of the source is one text.
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
    assert!(unknown.is_empty(), "no message of the aggregator contains {unknown:?}");
}

#[test]
fn the_recipes_name_files_that_there_are() {
    let page = read(&root().join("CONTRIBUTING.md"));
    let names = page.split('`').skip(1).step_by(2);
    let files = names.filter(|name| name.ends_with(".rs") && name.contains("/src/") && !name.contains('<'));
    let missing: Vec<_> = files.filter(|name| !root().join(name).exists()).collect();
    assert!(missing.is_empty(), "CONTRIBUTING.md names {missing:?}");
}

#[test]
fn the_bundle_of_the_page_is_built_from_its_sources() {
    let node = |script: &str, arguments: &[&Path]| {
        let script = devstack::page::tool(script).unwrap();
        let output = Command::new("node").arg(&script).args(arguments).output();
        let output = output.expect("node runs: apt install nodejs");
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
        panic!("{} was stale; it is built again, commit it", committed.display());
    }
}
