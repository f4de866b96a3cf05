//! The modules ("rooms") of a crate have no import cycle.
//!
//! A room is a file or a folder directly under `src`, except `bin`, `lib.rs` and `main.rs`. A file `a.rs` and a folder
//! `a` are one room. A room in a cycle cannot be read or changed without the other rooms of the cycle. Imports of test
//! code do not count.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 8] =
    ["schemas", "runtime", "ingest", "stream-agg", "query-api", "devstack", "benches", "e2e"];

/// For each room, the rooms from which it imports something, each with the first such import as `file: path`.
type Imports = BTreeMap<String, BTreeMap<String, String>>;

#[test]
fn rooms_of_a_crate_have_no_import_cycle() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace");
    let cycles = CRATES.iter().filter_map(|name| {
        let sources = sources(&workspace.join(name).join("src"));
        assert!(sources.iter().any(|(file, _)| file == "lib.rs"), "{name} has a library");
        cycle(&sources).map(|arrows| format!("{name}: {}", arrows.join(", ")))
    });
    let cycles: Vec<_> = cycles.collect();
    assert!(cycles.is_empty(), "rooms have an import cycle:\n{}", cycles.join("\n"));
}

/// The files of a `src` folder: their paths relative to it, and their text.
fn sources(src: &Path) -> Vec<(String, String)> {
    let (mut folders, mut files) = (vec![src.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("list {}: {error}", folder.display()));
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.expect("read an entry of a folder of sources").path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(src).expect("the file is below src");
                files.push((file.to_str().expect("the path is UTF-8").to_owned(), read(&path)));
            }
        }
    }
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The shortest import cycle, each import as `from -> to (file: path)`; none if there is no cycle.
fn cycle(sources: &[(String, String)]) -> Option<Vec<String>> {
    let imports = imports(sources);
    imports.keys().filter_map(|room| cycle_through(room, &imports)).min_by_key(Vec::len)
}

/// The shortest chain of imports from a room to itself.
fn cycle_through(start: &str, imports: &Imports) -> Option<Vec<String>> {
    let mut paths = VecDeque::from([(start, Vec::new())]);
    let mut seen = Vec::new();
    while let Some((room, path)) = paths.pop_front() {
        for (next, import) in imports.get(room).into_iter().flatten() {
            let mut path = path.clone();
            path.push(format!("{room} -> {next} ({import})"));
            if next == start {
                return Some(path);
            }
            if !seen.contains(next) {
                seen.push(next.clone());
                paths.push_back((next, path));
            }
        }
    }
    None
}

/// All imports between rooms.
fn imports(sources: &[(String, String)]) -> Imports {
    let rooms: Vec<_> = sources.iter().filter_map(|(file, _)| room(file)).collect();
    // If `lib.rs` re-exports a name, `crate::Name` is an import from the room that `lib.rs` takes the name from.
    let root = sources.iter().find(|(file, _)| file == "lib.rs").map(|(_, text)| production(text));
    let reexports = root.as_deref().map(reexports).unwrap_or_default();
    let mut imports = Imports::new();
    for (file, text) in sources.iter().filter(|(file, _)| !file.ends_with("tests.rs")) {
        let Some(from) = room(file) else { continue };
        for path in paths(file, &production(text)) {
            let Some(first) = path.first() else { continue };
            let to = reexports.get(first).unwrap_or(first);
            if rooms.contains(&to.as_str()) && to != from {
                let import = || format!("{file}: {}", path.join("::"));
                imports.entry(from.to_owned()).or_default().entry(to.clone()).or_insert_with(import);
            }
        }
    }
    imports
}

/// The room of a file; `None` for `lib.rs` and for programs. Programs are crates of their own, so no room can import
/// them.
fn room(file: &str) -> Option<&str> {
    let first = file.split('/').next().unwrap_or(file).trim_end_matches(".rs");
    (!["lib", "main", "bin"].contains(&first)).then_some(first)
}

/// The source text without items under `#[cfg(test)]` and without the part of each line after `//`. That part is
/// usually a comment.
fn production(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let indent = &line[..line.len() - line.trim_start().len()];
            // The item ends with the first line at the attribute's indent that ends in `;` or `}`. A line that begins
            // with `#` is another attribute of the item.
            let ends = |line: &str| {
                line.strip_prefix(indent).is_some_and(|item| {
                    item == "}" || !item.starts_with([' ', '#']) && item.ends_with([';', '}'])
                })
            };
            lines.by_ref().find(|line| ends(line));
        } else {
            kept.push_str(line.split("//").next().unwrap_or_default());
            kept.push('\n');
        }
    }
    kept
}

/// Every path in `text` that begins with `crate::` or `super::`, as its segments from the root of the crate. `file` is
/// the path of the source file.
fn paths(file: &str, text: &str) -> Vec<Vec<String>> {
    let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let module: Vec<_> = module.split('/').map(str::to_owned).collect();
    let mut paths = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        expand(&text[at + "crate::".len()..], &mut Vec::new(), &mut paths);
    }
    for (at, _) in text.match_indices("super::").filter(|(at, _)| !text[..*at].ends_with("::")) {
        let (mut rest, mut base) = (&text[at..], module.clone());
        while let Some(after) = rest.strip_prefix("super::") {
            base.pop();
            rest = after;
        }
        expand(rest, &mut base, &mut paths);
    }
    paths
}

/// The names that `lib.rs` re-exports, each with the room that it comes from.
fn reexports(text: &str) -> BTreeMap<String, String> {
    let mut paths = Vec::new();
    for (at, _) in text.match_indices("pub use ") {
        expand(&text[at + "pub use ".len()..], &mut Vec::new(), &mut paths);
    }
    let names = paths.into_iter().filter_map(|path| Some((path.last()?.clone(), path.first()?.clone())));
    names.filter(|(name, room)| name != room).collect()
}

/// Parses the import at the start of `text`, which may have groups, such as `a::b::{c, d::e}`. Adds each path of the
/// import to `paths`, prefixed with `base`. Returns the remaining text.
fn expand<'t>(text: &'t str, base: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'t str {
    let depth = base.len();
    let mut rest = text.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            rest = group.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                rest = expand(rest, base, paths).trim_start_matches([',', ' ', '\n']);
            }
            rest = rest.strip_prefix('}').unwrap_or(rest);
            break;
        }
        let length = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let (name, after) = rest.split_at(length.unwrap_or(rest.len()));
        base.push(name.to_owned());
        rest = after;
        match rest.strip_prefix("::") {
            Some(after) => rest = after.trim_start(),
            None => {
                paths.push(base.clone());
                // Skips what may follow the path: `as` with a new name, a `*`, or the rest of an expression.
                rest = &rest[rest.find([',', '}', ';', '\n']).unwrap_or(rest.len())..];
                break;
            }
        }
    }
    base.truncate(depth);
    rest
}

#[track_caller]
fn check(sources: &[(&str, &str)], expected: Option<&str>) {
    let sources: Vec<_> =
        sources.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
    assert_eq!(cycle(&sources).map(|arrows| arrows.join(", ")).as_deref(), expected);
}

#[test]
fn a_cycle_is_reported_with_a_file_and_a_path_for_each_import() {
    check(
        &[
            ("a.rs", "use crate::b::{C, d::{E, F}};"),
            ("b/mod.rs", "mod d;"),
            ("b/d.rs", "fn f() { super::super::a::g() }"),
        ],
        Some("a -> b (a.rs: b::C), b -> a (b/d.rs: a::g)"),
    );
    check(
        &[
            ("a.rs", "use crate::{\n    b::B,\n    x,\n};"),
            ("b.rs", "use super::c::C;"),
            ("c.rs", "use crate::Name;"),
            ("lib.rs", "mod a;\npub use a::{Name, other};"),
        ],
        Some("a -> b (a.rs: b::B), b -> c (b.rs: c::C), c -> a (c.rs: Name)"),
    );
}

#[test]
fn imports_within_a_room_and_imports_of_tests_and_programs_form_no_cycle() {
    let in_tests = "fn b() {}\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n";
    check(&[("a.rs", "use crate::b::B;"), ("b.rs", in_tests)], None);
    check(
        &[
            ("a.rs", "use crate::b::B;"),
            ("b/mod.rs", "#[cfg(test)]\nmod tests;"),
            ("b/tests.rs", "use crate::a;"),
        ],
        None,
    );
    check(&[("a.rs", "use crate::b::B;"), ("b.rs", "/// See [`crate::a`].\nfn b() {}")], None);
    check(&[("a/x.rs", "use super::y;"), ("a/y.rs", "use crate::a::x;")], None);
    check(
        &[("a.rs", "use crate::run;"), ("lib.rs", "use crate::a;\npub fn run() {}"), ("main.rs", "mod a;")],
        None,
    );
}
