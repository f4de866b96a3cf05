//! Which answers the statement of a refresh leaves out while ClickHouse is too slow to read all of them.
//!
//! After [`SLOW_BEFORE_LEAVING_OUT`] refreshes in a row that miss the deadline or exceed the memory limit, the
//! statement leaves out more answers. After [`QUICK_BEFORE_RESTORING`] refreshes in a row that succeed in less than
//! half of the deadline, the statement leaves out fewer answers. Pure: the caller measures the time.

use crate::answers::LeftOut;

/// Refreshes with [`Pace::TooSlow`] in a row after which the statement leaves out more answers.
const SLOW_BEFORE_LEAVING_OUT: u32 = 2;
/// Refreshes with [`Pace::Quick`] in a row after which the statement leaves out fewer answers.
const QUICK_BEFORE_RESTORING: u32 = 10;

/// How a refresh went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The refresh succeeded in less than half of its deadline.
    Quick,
    /// The refresh succeeded but needed at least half of its deadline, or it failed for a reason that a smaller
    /// statement would not remove.
    Other,
    /// The refresh missed its deadline, or exceeded the memory limit.
    TooSlow,
}

/// Decides what the next statement leaves out. The decision depends on the pace of the latest refreshes.
#[derive(Debug, Default)]
pub(crate) struct LeftOutPolicy {
    left_out: LeftOut,
    last: Option<Pace>,
    /// How many of the latest refreshes in a row had the pace `last`. The count restarts when it reaches a threshold.
    in_a_row: u32,
}

impl LeftOutPolicy {
    /// What the next statement leaves out.
    pub(crate) fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Notes how a refresh went. Returns whether this changes what the statement leaves out.
    pub(crate) fn note(&mut self, pace: Pace) -> bool {
        self.in_a_row = if self.last == Some(pace) { self.in_a_row + 1 } else { 1 };
        self.last = Some(pace);
        let next = match pace {
            Pace::TooSlow if self.in_a_row >= SLOW_BEFORE_LEAVING_OUT => more(self.left_out),
            Pace::Quick if self.in_a_row >= QUICK_BEFORE_RESTORING => less(self.left_out),
            Pace::Quick | Pace::Other | Pace::TooSlow => return false,
        };
        self.last = None;
        let changed = next != self.left_out;
        self.left_out = next;
        changed
    }
}

fn more(left_out: LeftOut) -> LeftOut {
    match left_out {
        LeftOut::Nothing => LeftOut::ColdKeys,
        LeftOut::ColdKeys => LeftOut::Polls,
        LeftOut::Polls | LeftOut::Counters => LeftOut::Counters,
    }
}

fn less(left_out: LeftOut) -> LeftOut {
    match left_out {
        LeftOut::Nothing | LeftOut::ColdKeys => LeftOut::Nothing,
        LeftOut::Polls => LeftOut::ColdKeys,
        LeftOut::Counters => LeftOut::Polls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks what is left out after these refreshes. Before them, nothing is left out.
    #[track_caller]
    fn check(paces: &[(Pace, u32)], expected: LeftOut) {
        let mut left_out_policy = LeftOutPolicy::default();
        for (pace, times) in paces {
            for _ in 0..*times {
                left_out_policy.note(*pace);
            }
        }
        assert_eq!(left_out_policy.left_out(), expected);
    }

    #[test]
    fn a_deadline_that_is_missed_twice_leaves_out_cold_keys_then_polls_then_counters() {
        check(&[(Pace::TooSlow, 1)], LeftOut::Nothing);
        check(&[(Pace::TooSlow, 2)], LeftOut::ColdKeys);
        check(&[(Pace::TooSlow, 3)], LeftOut::ColdKeys);
        check(&[(Pace::TooSlow, 4)], LeftOut::Polls);
        check(&[(Pace::TooSlow, 6)], LeftOut::Counters);
        check(&[(Pace::TooSlow, 60)], LeftOut::Counters);
    }

    #[test]
    fn a_refresh_in_time_between_two_late_ones_leaves_nothing_out() {
        check(&[(Pace::TooSlow, 1), (Pace::Other, 1), (Pace::TooSlow, 1)], LeftOut::Nothing);
    }

    #[test]
    fn quick_refreshes_bring_back_answers_step_by_step() {
        check(&[(Pace::TooSlow, 4), (Pace::Quick, QUICK_BEFORE_RESTORING - 1)], LeftOut::Polls);
        check(&[(Pace::TooSlow, 4), (Pace::Quick, QUICK_BEFORE_RESTORING)], LeftOut::ColdKeys);
        check(&[(Pace::TooSlow, 4), (Pace::Quick, 2 * QUICK_BEFORE_RESTORING)], LeftOut::Nothing);
        check(&[(Pace::TooSlow, 4), (Pace::Other, 5 * QUICK_BEFORE_RESTORING)], LeftOut::Polls);
    }
}
