//! The state of the tables: how far they are filled, and which rollups the aggregator declares. Each refresh reads this
//! state together with the prepared answers.
//!
//! A query is planned with the [`Reach`] of the latest refresh, and its answer shows the `as_of` of this [`Reach`]. The
//! statement of a query need not read `as_of` again: it runs after the refresh, so its rows include at least everything
//! that was in Kafka before this `as_of`.

use std::collections::BTreeMap;

use schemas::rollup::{Rollup, Rollups};
use schemas::time::UnixMillis;

/// The state of the tables at a refresh: how far they are filled, and which rollups the aggregator declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Everything that was in Kafka before this moment is counted; `None` before the aggregator has reported progress
    /// of all partitions.
    pub(crate) as_of: Option<UnixMillis>,
    /// For each rollup, by name: the moment, in seconds since 1970, from which on the rollup has every event. A rollup
    /// without an entry has every event from the beginning.
    pub(crate) since: BTreeMap<String, i64>,
    /// The rollups that the aggregator declares; `None` if this process declares the same rollups, or if no aggregator
    /// has started yet.
    pub(crate) aggregator_rollups: Option<Rollups>,
}

impl Reach {
    /// `since` has names of rollups, each with the moment, in milliseconds since 1970, from which on the rollup has
    /// every event. `declared` is the text of the aggregator's declaration. This text is empty if the aggregator
    /// declares the same rollups as this process, or if no aggregator has started yet.
    pub(crate) fn new(as_of: Option<UnixMillis>, since: &[(String, i64)], declared: &str) -> Self {
        // The moment 0 (in 1970) means that the rollup has had every event from the beginning.
        let counts_later = since.iter().filter(|(_, millis)| *millis > 0);
        let second = |millis: i64| millis.saturating_add(999).div_euclid(1000);
        Self {
            as_of,
            since: counts_later.map(|(rollup, millis)| (rollup.clone(), second(*millis))).collect(),
            // A declaration that this release cannot parse is treated as a declaration without rollups, so `differs` is
            // true for each rollup of this process.
            aggregator_rollups: (!declared.is_empty())
                .then(|| Rollups::parse("configs", declared).unwrap_or_else(|_| no_rollups())),
        }
    }

    /// Whether the aggregator declares the rollup differently from this process, or not at all.
    pub(crate) fn differs(&self, rollup: &Rollup) -> bool {
        self.aggregator_rollups.as_ref().is_some_and(|rollups| rollups.get(&rollup.name) != Some(rollup))
    }
}

fn no_rollups() -> Rollups {
    Rollups::parse("", "").expect("an empty declaration has no mistake")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_rollup_is_rounded_up_to_a_second_and_1970_means_always() {
        let since = [("r".to_owned(), 1_795_875_540_001), ("old".to_owned(), 0)];
        let reach = Reach::new(None, &since, "");
        assert_eq!(reach.since, [("r".to_owned(), 1_795_875_541)].into());
    }

    #[test]
    fn the_declaration_of_the_aggregator_is_parsed_and_compared() {
        let aggregator_rollups = |declared: &str| Reach::new(None, &[], declared).aggregator_rollups;
        assert_eq!(aggregator_rollups(""), None);
        let declared = Rollups::built_in();
        assert_eq!(aggregator_rollups(declared.source()), Some(declared.clone()));
        // `[[view]]` stands for the declaration of a later release, which this release cannot parse.
        assert_eq!(aggregator_rollups("[[view]]"), Some(no_rollups()));
        let rollup = declared.get("event_hourly").unwrap();
        assert!(Reach::new(None, &[], "[[view]]").differs(rollup) && !Reach::default().differs(rollup));
    }
}
