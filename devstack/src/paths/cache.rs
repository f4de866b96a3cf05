//! The downloads of `./dev`: Kafka's jars, the ClickHouse library, and the packages for the page and for some tests.
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

/// The shared library that contains the ClickHouse server.
pub(crate) fn clickhouse_library() -> anyhow::Result<PathBuf> {
    let home = home("clickhouse", "package-lock.json", include_str!("../../package-lock.json"))?;
    Ok(home.join("libchdb.so"))
}

/// The directory with the jars of ClickHouse's JDBC driver and of a console that uses this driver.
pub fn jdbc_jars() -> anyhow::Result<PathBuf> {
    let home = home("jdbc", "pom.xml", include_str!("../../jdbc/pom.xml"))?;
    Ok(home.join("lib"))
}

/// The interpreter of the Python environment into which `./dev test --full` installs clients of ClickHouse.
pub fn bi_clients_python() -> anyhow::Result<PathBuf> {
    let pins = include_str!("../../../e2e/bi_clients/requirements.txt");
    Ok(home("bi_clients_python", "requirements.txt", pins)?.join("bin/python"))
}

/// The interpreter of the Python environment into which `./dev test --full` installs Apache Superset.
pub fn bi_superset_python() -> anyhow::Result<PathBuf> {
    let pins = include_str!("../../../e2e/bi_superset/requirements.txt");
    Ok(home("bi_superset", "requirements.txt", pins)?.join("bin/python"))
}

/// The `node_modules` directory with ClickHouse's client for Node.
pub fn bi_clients_node_modules() -> anyhow::Result<PathBuf> {
    let lock = include_str!("../../../e2e/bi_clients/js/package-lock.json");
    Ok(home("bi_clients_node", "package-lock.json", lock)?.join("node_modules"))
}

/// The `node_modules` directory of the packages that build and test the web page of the query API.
pub(crate) fn page_packages() -> anyhow::Result<PathBuf> {
    let lock = include_str!("../../../query-api/page/package-lock.json");
    Ok(home("page", "package-lock.json", lock)?.join("node_modules"))
}

/// The directory of downloads and data. Git ignores it, and `cargo clean` keeps it.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(".cache")
}

fn home(name: &str, pins: &str, expected: &str) -> anyhow::Result<PathBuf> {
    let home = directory().join(name);
    let current = fs::read_to_string(home.join(pins)).is_ok_and(|found| found == expected);
    ensure!(
        current,
        "find {name} in {}: it is missing or outdated; run `./dev test` (for kafka and clickhouse, `./dev up` is \
         enough; for bi_*: `./dev test --full`)",
        home.display()
    );
    Ok(home)
}
