//! The tools that build and test the query API's page: node, its packages, a browser.

use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use runtime::vars::Vars;

use super::cache;

/// The sources of the page.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("query-api").join("page")
}

/// The path of a script of the page. If no packages are installed next to the sources, first links
/// `node_modules` to the packages that `./dev up` or `./dev test` has downloaded.
pub fn tool(script: &str) -> anyhow::Result<PathBuf> {
    let sources = sources();
    let packages = sources.join("node_modules");
    if !packages.exists() {
        // Node looks for packages next to the sources.
        match symlink(cache::page_packages()?, &packages) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("link {}", packages.display()));
            }
            _ => {}
        }
    }
    Ok(sources.join(script))
}

/// Chromium: the program that the variable `CHROMIUM` names, or Debian's.
pub fn chromium(vars: &Vars) -> anyhow::Result<PathBuf> {
    let program = PathBuf::from(vars.string_or("CHROMIUM", "/usr/bin/chromium"));
    ensure!(
        program.exists(),
        "find chromium at {}: apt install chromium, or set CHROMIUM to the path of a Chromium",
        program.display()
    );
    Ok(program)
}
