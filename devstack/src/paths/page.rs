//! The tools that build and test the web page of the query API: scripts for Node, their packages, and a browser.

use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use runtime::vars::Vars;

use super::cache;

/// The directory with the sources of the page.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("query-api").join("page")
}

/// The path of a script of the page. If no packages are installed next to the sources, first links
/// `node_modules` to the packages that `./dev test` has downloaded.
pub fn tool(script: &str) -> anyhow::Result<PathBuf> {
    let sources = sources();
    let packages = sources.join("node_modules");
    if !packages.exists() {
        // Node finds packages only in a `node_modules` of the script's directory or of a parent directory.
        match symlink(cache::page_packages()?, &packages) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("link {}", packages.display()));
            }
            _ => {}
        }
    }
    Ok(sources.join(script))
}

/// The path of Chromium: the value of the variable `CHROMIUM`, or else the path that Debian's package uses.
pub fn chromium(vars: &Vars) -> anyhow::Result<PathBuf> {
    let program = PathBuf::from(vars.string_or("CHROMIUM", "/usr/bin/chromium"));
    ensure!(
        program.exists(),
        "find chromium at {}: apt install chromium, or set CHROMIUM to the path of a Chromium",
        program.display()
    );
    Ok(program)
}
