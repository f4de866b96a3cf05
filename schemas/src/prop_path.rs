//! The path of a field inside `props`.

use std::fmt;

/// The names that lead from `props` to a field, outermost first; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropPath(Vec<String>);

impl PropPath {
    /// The path of these names.
    ///
    /// # Panics
    /// If `steps` is empty.
    pub(crate) fn new(steps: Vec<String>) -> Self {
        assert!(!steps.is_empty(), "a path has at least one step");
        Self(steps)
    }

    /// The names, outermost first.
    pub fn steps(&self) -> &[String] {
        &self.0
    }
}

/// The path as it is declared, without `props`: `account.plan`.
impl fmt::Display for PropPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}
