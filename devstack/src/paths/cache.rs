//! The downloads of `./dev`: Kafka's jars and the ClickHouse library.
//!
//! Next to each download is a copy of the file that pins its version. A download of another version counts as
//! missing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::ensure;

/// The directory of Kafka's jars.
pub(crate) fn kafka_jars() -> anyhow::Result<PathBuf> {
    let home = home("kafka", "pom.xml", include_str!("../../pom.xml"))?;
    Ok(home.join("lib"))
}

/// The library that contains ClickHouse.
pub(crate) fn clickhouse_library() -> anyhow::Result<PathBuf> {
    let home = home("clickhouse", "package-lock.json", include_str!("../../package-lock.json"))?;
    Ok(home.join("libchdb.so"))
}

/// The directory of the jars of ClickHouse's JDBC driver and of a console for it.
pub fn jdbc_jars() -> anyhow::Result<PathBuf> {
    let home = home("jdbc", "pom.xml", include_str!("../../jdbc/pom.xml"))?;
    Ok(home.join("lib"))
}

/// The Python environment with the clients of ClickHouse that `./dev test --full` installs.
pub fn bi_clients_python() -> anyhow::Result<PathBuf> {
    let pins = include_str!("../../../e2e/bi_clients/requirements.txt");
    Ok(home("bi_clients_python", "requirements.txt", pins)?.join("bin/python"))
}

/// The Python environment with Apache Superset that `./dev test --full` installs.
pub fn bi_superset_python() -> anyhow::Result<PathBuf> {
    let pins = include_str!("../../../e2e/bi_superset/requirements.txt");
    Ok(home("bi_superset", "requirements.txt", pins)?.join("bin/python"))
}

/// The directory of ClickHouse's client for Node.
pub fn bi_clients_node_modules() -> anyhow::Result<PathBuf> {
    let lock = include_str!("../../../e2e/bi_clients/js/package-lock.json");
    Ok(home("bi_clients_node", "package-lock.json", lock)?.join("node_modules"))
}

/// The directory of the packages that build and test the page.
pub(crate) fn page_packages() -> anyhow::Result<PathBuf> {
    let lock = include_str!("../../../query-api/page/package-lock.json");
    Ok(home("page", "package-lock.json", lock)?.join("node_modules"))
}

/// The directory of downloads and data: outside git, and kept by `cargo clean`.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(".cache")
}

fn home(name: &str, pins: &str, expected: &str) -> anyhow::Result<PathBuf> {
    let home = directory().join(name);
    let current = fs::read_to_string(home.join(pins)).is_ok_and(|found| found == expected);
    ensure!(current, "find {name} in {}: run `./dev test` or `./dev up`, which downloads it", home.display());
    Ok(home)
}
