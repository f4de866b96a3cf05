//! The moments from which on rollups have every event of a Kafka partition. The table `rollup_since` stores one moment
//! for each rollup and Kafka partition. If a rollup was declared after events had been stored, its moments tell readers
//! for which times its results are complete.
//!
//! A moment is an arrival time: the rollup has every event of the partition that arrived at this time or later. If the
//! table has no row for a rollup and a partition, the rollup has every event of the partition.
//!
//! Invariant: a stored moment is never too early. This holds for any sequence of owners, whether or not they declare
//! the rollup, and even if an owner dies or is paused at any point. To keep the invariant, an owner writes before and
//! after the commit with which it begins to use its declaration. Before the commit, the owner replaces every moment
//! that is no longer valid, or not valid yet, by [`NOT_COUNTED`]. After the commit, which succeeds only while the
//! process owns the partition ([`crate::protocol::progress::after_commit`]), the owner writes the moments of the
//! rollups that begin with this commit.
//!
//! The table keeps the row with the highest version. The version is based on ClickHouse's time, read before the commit,
//! so a later owner's row replaces an earlier owner's row even if ClickHouse receives the earlier owner's row last.
//! The functions here are pure.

use std::collections::{BTreeMap, BTreeSet};

use schemas::rollup::Rollups;
use schemas::time::{DAY, UnixMillis};

use crate::protocol::declaration::Declaration;

/// 2299-12-31, the moment of a rollup that currently does not count the events of a partition. It is later than the
/// arrival of any event.
pub const NOT_COUNTED: UnixMillis = UnixMillis(120_529 * DAY);

/// The stored moments of one Kafka partition, by the names of the rollups.
pub type NotedSince = BTreeMap<String, UnixMillis>;

/// The changes to the stored moments of a partition that a process writes when it begins to use its declaration there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinceChanges {
    /// Rollups whose moment is replaced by [`NOT_COUNTED`] before the commit.
    pub withdrawn: BTreeSet<String>,
    /// The rollups among `withdrawn` that have every event from the commit on.
    pub begun: BTreeSet<String>,
}

/// The names of rollups.
pub fn names(rollups: &Rollups) -> BTreeSet<&str> {
    rollups.iter().map(|rollup| &*rollup.name).collect()
}

/// The changes for a partition with the stored moments `noted`. Until now, the records of the partition were counted
/// into the rollups `before`; from now on, they are counted into the rollups `ours`.
pub fn changes(noted: &NotedSince, before: &BTreeSet<&str>, ours: &BTreeSet<&str>) -> SinceChanges {
    // `NOT_COUNTED` remains in the table if an owner declared the rollup but died before it stored the moment.
    let is_open = |name: &str| noted.get(name) == Some(&NOT_COUNTED);
    let begun = ours.iter().filter(|name| !before.contains(*name) || is_open(name));
    let begun: BTreeSet<String> = begun.map(|name| (*name).to_owned()).collect();
    // For a removed rollup, `NOT_COUNTED` is written even if it is already stored: the previous owner of the partition
    // may still write the rollup's moment, and only a row with a higher version replaces that moment.
    let removed = before.difference(ours).map(|name| (*name).to_owned());
    // Moments of rollups that this process does not declare, and that may also be missing in `before`. For example, a
    // backfill wrote the moment, or `before` is empty because the previous declaration could not be read.
    let stale = noted.iter().filter(|(name, since)| **since != NOT_COUNTED && !ours.contains(&***name));
    let stale = stale.map(|(name, _)| name.clone());
    let withdrawn = removed.chain(stale).chain(begun.iter().cloned()).collect();
    SinceChanges { withdrawn, begun }
}

/// The rollups of `ours` that no declaration in `earlier` contains, so that no partition counts them yet. Empty if
/// `earlier` is empty: there is no declaration under which events could have been stored without these rollups.
pub fn introduced<'r>(ours: &'r Rollups, earlier: &[Declaration]) -> BTreeSet<&'r str> {
    let mut all = names(ours);
    all.retain(|name| earlier.iter().all(|declared| declared.rollups.get(name).is_none()));
    if earlier.is_empty() { BTreeSet::new() } else { all }
}

/// The moment of a rollup that begins to count now. Earlier records are the records below the offset of the commit with
/// which the rollup begins; the rollup does not count them. If `latest`, the latest time that Kafka gave an earlier
/// record, is known, the moment is one millisecond after `latest`. Otherwise the moment is `now`, or the beginning of
/// 1970 if there are no earlier records.
pub fn begins(latest: Option<UnixMillis>, has_earlier_records: bool, now: UnixMillis) -> UnixMillis {
    match latest {
        // The rollup lacks an earlier record that Kafka received in the millisecond `latest`, so it is complete only
        // from the next millisecond on.
        Some(latest) => UnixMillis(latest.0 + 1),
        None if has_earlier_records => now,
        None => UnixMillis(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: UnixMillis = UnixMillis(1_700_000_000_000);

    #[track_caller]
    fn check(
        noted: &[(&str, UnixMillis)],
        before: &[&str],
        ours: &[&str],
        withdrawn: &[&str],
        begun: &[&str],
    ) {
        let noted = noted.iter().map(|(name, since)| ((*name).to_owned(), *since)).collect();
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let found = changes(&noted, &before.iter().copied().collect(), &ours.iter().copied().collect());
        assert_eq!(found, SinceChanges { withdrawn: set(withdrawn), begun: set(begun) });
    }

    #[test]
    fn a_rollup_that_the_previous_declaration_lacks_begins() {
        check(&[], &["a"], &["a", "b"], &["b"], &["b"]);
        check(&[("b", NOT_COUNTED)], &["a"], &["a", "b"], &["b"], &["b"]);
        // Rollup `b` was declared, removed, and declared again.
        check(&[("b", MOMENT)], &["a"], &["a", "b"], &["b"], &["b"]);
    }

    #[test]
    fn no_moment_changes_if_the_rollups_stay_the_same() {
        check(&[], &["a", "b"], &["a", "b"], &[], &[]);
        check(&[("b", MOMENT)], &["a", "b"], &["a", "b"], &[], &[]);
    }

    #[test]
    fn a_rollup_begins_if_an_owner_died_before_it_stored_the_moment() {
        check(&[("b", NOT_COUNTED)], &["a", "b"], &["a", "b"], &["b"], &["b"]);
    }

    #[test]
    fn a_rollup_that_the_current_declaration_lacks_is_withdrawn() {
        check(&[], &["a", "b"], &["a"], &["b"], &[]);
        check(&[("b", MOMENT)], &["a", "b"], &["a"], &["b"], &[]);
        // The previous owner may still write the moment since which it counted rollup `b`.
        check(&[("b", NOT_COUNTED)], &["a", "b"], &["a"], &["b"], &[]);
        // A backfill wrote the moment while the owner of the partition did not declare the rollup.
        check(&[("b", MOMENT)], &["a"], &["a"], &["b"], &[]);
        check(&[("b", NOT_COUNTED)], &["a"], &["a"], &[], &[]);
    }

    #[test]
    fn only_a_rollup_that_no_earlier_declaration_has_is_introduced() {
        let built_in = Declaration::built_in();
        let without = built_in.rollups.source().replace("\"sessions_daily\"", "\"other_daily\"");
        let other =
            Declaration { rollups: Rollups::parse("test", &without).unwrap(), ..Declaration::built_in() };
        let ours = &built_in.rollups;
        assert_eq!(introduced(ours, &[]), BTreeSet::new());
        assert_eq!(introduced(ours, std::slice::from_ref(&other)), BTreeSet::from(["sessions_daily"]));
        assert_eq!(introduced(ours, &[other, built_in.clone()]), BTreeSet::new());
    }

    #[test]
    fn a_rollup_begins_after_the_latest_time_of_the_earlier_records() {
        assert_eq!(begins(Some(MOMENT), true, UnixMillis(5)), UnixMillis(MOMENT.0 + 1));
        assert_eq!(begins(None, true, MOMENT), MOMENT);
        assert_eq!(begins(None, false, MOMENT), UnixMillis(0));
        assert_eq!(NOT_COUNTED.to_string(), "2299-12-31 00:00:00.000");
    }
}
