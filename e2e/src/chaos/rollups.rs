//! The rollups of a run: the built-in ones, and one with so many groups that some are folded into `(other)`.

use schemas::rollup::Rollups;

use crate::world::ADDED_ROLLUP_TOML;

/// Name of the rollup in which each line of a large request is a group of its own.
pub const FOLDING_ROLLUP: &str = "lines_hourly";
/// The `ROLLUP_MAX_GROUPS` of the aggregators: how many groups each rollup may have in a batch. In a run, no built-in
/// rollup reaches this limit, but [`FOLDING_ROLLUP`] exceeds it in a batch with a few large requests.
pub const MAX_GROUPS: usize = 5000;

const DECLARED: &str = r#"
[[rollup]]
name = "lines_hourly"
grain = "hour"
dimensions = ["event", "props.nonce"]
measures = { events = "count", value = "sum(param_int)", users = "uniq_exact(user)" }
"#;

/// Maximum number of ids in the deduplication window of each partition after the change in the middle of a long run.
/// The window then drops records every few seconds.
pub const WINDOW_IDS_AFTER_CHANGE: usize = 300;

/// The declaration of all rollups of a run.
pub fn declaration() -> String {
    format!("{}{DECLARED}", Rollups::built_in())
}

/// The declaration after the change in the middle of a long run, which adds a rollup.
pub fn declaration_after_change() -> String {
    format!("{}{ADDED_ROLLUP_TOML}", declaration())
}

/// The rollups of [`declaration`], parsed.
///
/// # Panics
/// If the declaration is not valid.
pub fn declared() -> Rollups {
    Rollups::parse("chaos", &declaration()).expect("the declaration is valid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::ADDED_ROLLUP;

    #[test]
    fn the_folding_rollup_and_the_added_rollup_are_declared() {
        assert!(declared().get(FOLDING_ROLLUP).is_some());
        assert!(Rollups::parse("chaos", &declaration_after_change()).unwrap().get(ADDED_ROLLUP).is_some());
    }
}
