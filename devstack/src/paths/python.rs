//! The Python interpreter for the tests that are written in Python.

use std::path::PathBuf;

use anyhow::ensure;
use runtime::vars::Vars;

use super::cache;

/// The interpreter that the variable `PYTHON` names, or the one that `./dev test` installs in `.cache`.
pub fn find(vars: &Vars) -> anyhow::Result<PathBuf> {
    let given = vars.string_or("PYTHON", "");
    if !given.is_empty() {
        return Ok(given.into());
    }
    let python = cache::directory().join("python/bin/python");
    ensure!(
        python.exists(),
        "find {}: it is missing; run `./dev test` once to install it, or set PYTHON",
        python.display()
    );
    Ok(python)
}
