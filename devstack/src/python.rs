//! The Python that runs the tests written in it: the one that `./dev test` sets up, or a given one.

use std::path::PathBuf;

use anyhow::ensure;
use runtime::vars::Vars;

use crate::cache;

/// Finds it: `PYTHON`, or the one in `.cache`.
pub fn find(vars: &Vars) -> anyhow::Result<PathBuf> {
    let given = vars.string_or("PYTHON", "");
    if !given.is_empty() {
        return Ok(given.into());
    }
    let python = cache::directory().join("python/bin/python");
    ensure!(
        python.exists(),
        "find {}: run `./dev test` once, which sets it up, or set PYTHON",
        python.display()
    );
    Ok(python)
}
