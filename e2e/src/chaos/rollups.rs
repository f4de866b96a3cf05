//! What is aggregated in a run of chaos: the built-in rollups, and one whose groups fold.

use schemas::rollup::Rollups;

use crate::world::DECLARED_LATER;

/// A rollup with a group for each line of a large request.
pub const FOLDING: &str = "lines_hourly";
/// Groups of a batch beyond which a rollup folds: more than the built-in ones ever have here, and fewer
/// than a batch of a few large requests has of [`FOLDING`].
pub const MAX_GROUPS: usize = 5000;

const DECLARED: &str = r#"
[[rollup]]
name = "lines_hourly"
grain = "hour"
dimensions = ["event", "props.nonce"]
measures = { events = "count", value = "sum(param_int)", users = "uniq_exact(user)" }
"#;

/// Ids that the deduplication window holds from then on: it pops every few seconds.
pub const WINDOW_IDS_LATER: usize = 300;

/// Their declaration.
pub fn declaration() -> String {
    format!("{}{DECLARED}", Rollups::built_in())
}

/// The declaration from the middle of a long run on.
pub fn later_declaration() -> String {
    format!("{}{DECLARED_LATER}", declaration())
}

/// All of them.
///
/// # Panics
/// If the declaration above is not one.
pub fn declared() -> Rollups {
    Rollups::parse("chaos", &declaration()).expect("the declaration is right")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::LATER;

    #[test]
    fn the_rollup_that_folds_is_declared() {
        assert!(declared().get(FOLDING).is_some());
        assert!(Rollups::parse("chaos", &later_declaration()).unwrap().get(LATER).is_some());
    }
}
