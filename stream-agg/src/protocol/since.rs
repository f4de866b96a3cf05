//! From which moment on a rollup has every event of a Kafka partition. The table `rollup_since` has these moments, from
//! which readers know how far back a rollup that was declared late is complete.
//!
//! A moment is a time of arrival. A rollup without a row in the table has every event of the partition.
//!
//! Invariant: a moment is never too early, whichever processes with and without the rollup have the partition one after
//! another, and wherever one of them dies or is paused. It follows from the order of two writes around the commit that
//! changes the declaration. Before the commit, every moment that will not hold any more, or does not hold yet, is
//! replaced by [`NOT_COUNTED`]. After the commit, which Kafka accepts from the owner of the partition only, the moments
//! of the rollups that begin with it are written. Their version is a clock that was read before the commit, so a later
//! owner's first write replaces a write of an earlier owner that arrives late. Pure.

use std::collections::{BTreeMap, BTreeSet};

use schemas::rollup::Rollups;
use schemas::time::{DAY, UnixMillis};

use crate::protocol::declaration::Declaration;

/// 2299-12-31, the moment of a rollup that does not count the events of a partition at present. It is later than the
/// arrival of any event.
pub const NOT_COUNTED: UnixMillis = UnixMillis(120_529 * DAY);

/// What is noted of rollups for one Kafka partition, by their names.
pub type NotedSince = BTreeMap<String, UnixMillis>;

/// What a process notes when a partition begins to work under its declaration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinceChanges {
    /// Rollups to note as not counted before the commit.
    pub withdrawn: BTreeSet<String>,
    /// Those of them that have every event from the commit on.
    pub begun: BTreeSet<String>,
}

/// The names of rollups.
pub fn names(rollups: &Rollups) -> BTreeSet<&str> {
    rollups.iter().map(|rollup| &*rollup.name).collect()
}

/// What changes for a partition of which `noted` is known, if its records up to now were counted into the rollups
/// `before`, and from now on are counted into `ours`.
pub fn changes(noted: &NotedSince, before: &BTreeSet<&str>, ours: &BTreeSet<&str>) -> SinceChanges {
    // An owner that declares the rollup died before it stored the moment from which on it counts.
    let is_open = |name: &str| noted.get(name) == Some(&NOT_COUNTED);
    let begun = ours.iter().filter(|name| !before.contains(*name) || is_open(name));
    let begun: BTreeSet<String> = begun.map(|name| (*name).to_owned()).collect();
    // The row is written even if that of a removed rollup already says so: the previous owner of the partition may
    // still overwrite it.
    let removed = before.difference(ours).map(|name| (*name).to_owned());
    // A previous owner wrote these rows of rollups that we do not declare, and died before its commit to Kafka.
    let stale = noted.iter().filter(|(name, since)| **since != NOT_COUNTED && !ours.contains(&***name));
    let stale = stale.map(|(name, _)| name.clone());
    let withdrawn = removed.chain(stale).chain(begun.iter().cloned()).collect();
    SinceChanges { withdrawn, begun }
}

/// The rollups of `ours` that no declaration in `earlier` has: no partition counts them yet. None if nothing was
/// ever declared.
pub fn introduced<'r>(ours: &'r Rollups, earlier: &[Declaration]) -> BTreeSet<&'r str> {
    let mut all = names(ours);
    all.retain(|name| earlier.iter().all(|declared| declared.rollups.get(name).is_none()));
    if earlier.is_empty() { BTreeSet::new() } else { all }
}

/// The moment of a rollup that begins to count where `latest` is Kafka's latest time of the records before. If that
/// time is unknown it is `now`, and 1970 if there was no record before.
pub fn begins(latest: Option<UnixMillis>, has_earlier_records: bool, now: UnixMillis) -> UnixMillis {
    match latest {
        // Records of the same millisecond may lie on both sides.
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
    fn a_rollup_that_the_declaration_before_lacks_begins() {
        check(&[], &["a"], &["a", "b"], &["b"], &["b"]);
        check(&[("b", NOT_COUNTED)], &["a"], &["a", "b"], &["b"], &["b"]);
        // It was declared, removed, and declared again.
        check(&[("b", MOMENT)], &["a"], &["a", "b"], &["b"], &["b"]);
    }

    #[test]
    fn nothing_changes_under_the_same_rollups() {
        check(&[], &["a", "b"], &["a", "b"], &[], &[]);
        check(&[("b", MOMENT)], &["a", "b"], &["a", "b"], &[], &[]);
    }

    #[test]
    fn a_rollup_whose_owner_died_between_its_commit_and_its_note_begins() {
        check(&[("b", NOT_COUNTED)], &["a", "b"], &["a", "b"], &["b"], &["b"]);
    }

    #[test]
    fn a_rollup_that_ours_lacks_is_withdrawn() {
        check(&[], &["a", "b"], &["a"], &["b"], &[]);
        check(&[("b", MOMENT)], &["a", "b"], &["a"], &["b"], &[]);
        // The owner before may still write from when on it counted.
        check(&[("b", NOT_COUNTED)], &["a", "b"], &["a"], &["b"], &[]);
        // A backfill noted it while no owner that declares it had the partition.
        check(&[("b", MOMENT)], &["a"], &["a"], &["b"], &[]);
        check(&[("b", NOT_COUNTED)], &["a"], &["a"], &[], &[]);
    }

    #[test]
    fn only_a_rollup_that_was_never_declared_before_is_introduced() {
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
    fn a_rollup_begins_after_the_records_before_and_never_too_early() {
        assert_eq!(begins(Some(MOMENT), true, UnixMillis(5)), UnixMillis(MOMENT.0 + 1));
        assert_eq!(begins(None, true, MOMENT), MOMENT);
        assert_eq!(begins(None, false, MOMENT), UnixMillis(0));
        assert_eq!(NOT_COUNTED.to_string(), "2299-12-31 00:00:00.000");
    }
}
