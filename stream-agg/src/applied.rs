//! Whether a cell has its batch, and what to do if it has not.
//!
//! Nothing says so but the marker that is read after an insert: an answer may be
//! lost, late, or true of a part that a killed server forgot. Pure; times are those
//! of ClickHouse's clock.

use schemas::time::{SECOND, UnixMillis};

use crate::progress::NextOffset;

/// How long a statement may insert after it was made, in milliseconds: its deadline.
pub const VALIDITY: i64 = 30 * SECOND;
/// Longest that ClickHouse works on one statement, in milliseconds.
pub const EXECUTION: i64 = 25 * SECOND;

/// What a cell must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its rows are those of offsets from here on.
    pub lo: NextOffset,
    /// What its marker says once it is there.
    pub hwm: NextOffset,
    /// When ClickHouse may drop its table partition with the marker; never if absent.
    pub ends: Option<UnixMillis>,
}

impl Target {
    /// Whether a statement inserts: what the condition in every insert says.
    pub fn admits(&self, marker: NextOffset, now: UnixMillis, deadline: UnixMillis) -> bool {
        marker <= self.lo && now < deadline
    }
}

/// What was tried so far for one cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tries {
    /// The last statement's deadline, and whether ClickHouse answered that it is done.
    last: Option<(UnixMillis, bool)>,
    /// How often ClickHouse said done, in time, and the rows were not there.
    lost: u8,
    /// No statement before this moment.
    wait: Option<UnixMillis>,
}

impl Tries {
    /// A statement with this deadline was sent; `done` unless its answer is unknown.
    pub fn sent(&mut self, deadline: UnixMillis, done: bool) {
        self.last = Some((deadline, done));
    }

    /// Whether no statement of ours was sent.
    pub fn never_sent(&self) -> bool {
        self.last.is_none()
    }

    /// Whether the token needs a new name: ClickHouse knows the old one, and lost its part.
    pub fn renamed(&self) -> bool {
        self.lost >= 2
    }
}

/// What follows for a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It has the batch.
    Applied,
    /// Send its rows, the same under the same token.
    Send,
    /// Look again at this moment: an earlier statement may still run until then.
    Wait(UnixMillis),
    /// Somebody's help is needed.
    Stop(Lost),
}

/// What must not happen to a cell, and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Lost {
    /// Its marker lies between two ends of this batch: somebody inserted another batch.
    #[error("its marker says {0}, which is inside the declared batch")]
    Foreign(NextOffset),
    /// ClickHouse took the rows three times, under two tokens, and does not have them.
    #[error("clickhouse took its rows three times and does not have them")]
    Parts,
}

/// Judges a cell by the `marker` that was read at `now`.
pub fn judge(target: &Target, tries: &mut Tries, marker: NextOffset, now: UnixMillis) -> Verdict {
    if marker >= target.hwm {
        return Verdict::Applied;
    }
    if marker > target.lo {
        return Verdict::Stop(Lost::Foreign(marker));
    }
    if let Some(until) = tries.wait {
        if now < until {
            return Verdict::Wait(until);
        }
        tries.wait = None;
        return if tries.lost > 2 { Verdict::Stop(Lost::Parts) } else { Verdict::Send };
    }
    match tries.last {
        // Dropped with its marker, or about to be.
        Some((_, true)) if target.ends.is_some_and(|ends| ends <= now) => Verdict::Applied,
        // The token is known, for the statement was in time, and yet its part is lost.
        Some((deadline, true)) if now < deadline => {
            tries.lost += 1;
            let until = UnixMillis(deadline.0 + EXECUTION);
            tries.wait = Some(until);
            Verdict::Wait(until)
        }
        _ => Verdict::Send,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target { lo: NextOffset::ZERO, hwm: NextOffset::new(5), ends: None };
    const NONE: NextOffset = NextOffset::ZERO;

    fn at(millis: i64) -> UnixMillis {
        UnixMillis(millis)
    }

    fn tries(deadline: i64, done: bool) -> Tries {
        let mut tries = Tries::default();
        tries.sent(at(deadline), done);
        tries
    }

    #[test]
    fn only_the_marker_says_that_a_cell_has_its_batch() {
        for mut tries in [Tries::default(), tries(10, true), tries(10, false)] {
            assert_eq!(judge(&TARGET, &mut tries, TARGET.hwm, at(0)), Verdict::Applied);
            assert_ne!(judge(&TARGET, &mut tries, NONE, at(0)), Verdict::Applied);
        }
    }

    #[test]
    fn an_unknown_answer_and_one_past_the_deadline_are_sent_again() {
        assert_eq!(judge(&TARGET, &mut Tries::default(), NONE, at(0)), Verdict::Send);
        assert_eq!(judge(&TARGET, &mut tries(10, false), NONE, at(5)), Verdict::Send);
        assert_eq!(judge(&TARGET, &mut tries(10, true), NONE, at(10)), Verdict::Send);
        assert!(!tries(10, true).renamed());
    }

    #[test]
    fn a_lost_part_is_waited_for_sent_again_renamed_and_then_given_to_people() {
        let mut tries = Tries::default();
        let mut now = 0;
        for renamed in [false, false, true] {
            assert_eq!(tries.renamed(), renamed);
            tries.sent(at(now + 10), true);
            let until = at(now + 10 + EXECUTION);
            assert_eq!(judge(&TARGET, &mut tries, NONE, at(now + 5)), Verdict::Wait(until));
            assert_eq!(judge(&TARGET, &mut tries, NONE, at(now + 6)), Verdict::Wait(until));
            now = until.0;
            let expected = if renamed { Verdict::Stop(Lost::Parts) } else { Verdict::Send };
            assert_eq!(judge(&TARGET, &mut tries, NONE, at(now)), expected);
        }
    }

    #[test]
    fn a_cell_that_clickhouse_may_drop_needs_one_answer() {
        let target = Target { ends: Some(at(100)), ..TARGET };
        assert_eq!(judge(&target, &mut Tries::default(), NONE, at(100)), Verdict::Send);
        assert_eq!(judge(&target, &mut tries(110, false), NONE, at(100)), Verdict::Send);
        assert_eq!(judge(&target, &mut tries(110, true), NONE, at(100)), Verdict::Applied);
        assert_ne!(judge(&target, &mut tries(110, true), NONE, at(99)), Verdict::Applied);
    }

    #[test]
    fn a_marker_inside_the_batch_is_somebody_elses() {
        let marker = NextOffset::new(3);
        assert_eq!(
            judge(&TARGET, &mut Tries::default(), marker, at(0)),
            Verdict::Stop(Lost::Foreign(marker))
        );
    }

    #[test]
    fn a_statement_inserts_once_and_in_time() {
        assert!(TARGET.admits(NONE, at(9), at(10)));
        assert!(!TARGET.admits(NONE, at(10), at(10)));
        assert!(!TARGET.admits(NextOffset::new(1), at(0), at(10)));
        assert!(!TARGET.admits(TARGET.hwm, at(0), at(10)));
    }
}
