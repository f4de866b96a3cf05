//! What `./dev` downloaded: Kafka's jars and the ClickHouse library.
//!
//! A copy of the pinning file stands beside the files it brought; what belongs
//! to other pins counts as not downloaded.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::ensure;

/// The directory of Kafka's jars.
pub(crate) fn kafka_jars() -> anyhow::Result<PathBuf> {
    let home = home("kafka", "pom.xml", include_str!("../pom.xml"))?;
    Ok(home.join("lib"))
}

/// The file that holds ClickHouse.
pub(crate) fn clickhouse_library() -> anyhow::Result<PathBuf> {
    let home = home("clickhouse", "package-lock.json", include_str!("../package-lock.json"))?;
    Ok(home.join("libchdb.so"))
}

/// The directory that is not in git and survives `cargo clean`.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(".cache")
}

fn home(name: &str, pins: &str, expected: &str) -> anyhow::Result<PathBuf> {
    let home = directory().join(name);
    let current = fs::read_to_string(home.join(pins)).is_ok_and(|found| found == expected);
    ensure!(current, "find {name} in {}: run `./dev test` or `./dev up`, which downloads it", home.display());
    Ok(home)
}
