//! Decides whether a cell, that is, the rows of a batch for one table partition, is in ClickHouse, and whether to send
//! the rows again.
//!
//! Either of two things proves that the rows are stored: a marker at or above the end of the batch, or a timely answer
//! to the first statement that any process sent for them, if this answer reports all rows as written. Any other answer
//! proves nothing. It may be late or missing, it may belong to a statement whose deduplication token ClickHouse already
//! knew, or it may be about a part that a killed server has lost. A cell without proof counts as applied in one case
//! only: ClickHouse accepted a statement, and the table partition has expired, so ClickHouse may have dropped it
//! together with its marker. Pure; all moments are by ClickHouse's clock, except in [`Target::by_our_clock`].

use std::time::Duration;

use schemas::time::{SECOND, UnixMillis};

use crate::protocol::progress::NextOffset;

/// Deadline of an insert, in milliseconds after its statement was made.
pub const STATEMENT_VALIDITY_MS: i64 = 30 * SECOND;
/// ClickHouse's time limit for one statement, in milliseconds.
pub const MAX_EXECUTION_MS: i64 = 25 * SECOND;
/// Milliseconds from the moment when a statement was made until its insert has certainly ended, even if ClickHouse
/// starts the insert at its deadline.
pub const MAX_INSERT_LIFETIME_MS: i64 = STATEMENT_VALIDITY_MS + MAX_EXECUTION_MS;

/// The batch whose rows a table partition must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// The first offset of the batch.
    pub start: NextOffset,
    /// The offset that the marker of the table partition has once the rows are stored.
    pub end: NextOffset,
    /// When ClickHouse may drop the table partition with its marker; `None` means never.
    pub expires_at: Option<UnixMillis>,
}

impl Target {
    /// Whether ClickHouse inserts the rows of a statement with this `deadline`, if the table partition has this
    /// `marker` at the time `now`. Every insert has this condition.
    pub fn admits(&self, marker: NextOffset, now: UnixMillis, deadline: UnixMillis) -> bool {
        marker <= self.start && now < deadline
    }

    /// Drops `expires_at` unless this moment has also passed by the clock of this machine, which shows `ours`. So the
    /// table partition counts as expired only if both clocks agree. Otherwise, if only ClickHouse's clock jumped ahead,
    /// lost rows would count as expired.
    pub fn by_our_clock(self, ours: UnixMillis) -> Self {
        Self { expires_at: self.expires_at.filter(|ends| *ends <= ours), ..self }
    }
}

/// What the answer to a statement proves about its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InsertAnswer {
    /// The answer proves nothing: it is an error, or there was no answer.
    None,
    /// ClickHouse accepted the statement, but the answer proves nothing about the rows: it came late, or the number of
    /// written rows that it reports is missing or differs from the number of sent rows, for example because a view is
    /// attached to the table.
    Accepted,
    /// All rows are written, by this statement or by an earlier one with the same token.
    Written,
}

impl InsertAnswer {
    /// Classifies a successful answer to a statement of `sent` rows. The answer took the time `elapsed`. `written` is
    /// the number of written rows that ClickHouse reports, if it reports one.
    pub fn of(written: Option<u64>, sent: usize, elapsed: Duration) -> Self {
        let in_time = elapsed.as_millis() < u128::from(STATEMENT_VALIDITY_MS.unsigned_abs());
        if in_time && written == Some(sent as u64) { Self::Written } else { Self::Accepted }
    }
}

/// The attempts to insert one cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Attempts {
    /// The deadline of the last statement, and its answer.
    last: Option<(UnixMillis, InsertAnswer)>,
    /// How often ClickHouse answered in time that the rows are written, although the marker shows that they are not.
    lost: u8,
    /// No statement is sent before this moment; `None` if there is no need to wait.
    wait: Option<UnixMillis>,
    /// Why no more statements are sent; `None` while statements may be sent.
    stopped: Option<StopCause>,
    /// Whether only these attempts can have sent the rows. False if another process, or an earlier run of this process,
    /// may have sent them.
    own: bool,
}

impl Attempts {
    /// The attempts for a cell before the first statement. `rebuilt` is false for a batch that this owner of the
    /// partition declared itself and whose commit was acknowledged: nobody else knows its token. `rebuilt` is true for
    /// each batch that was read from an intent, even if the same process wrote the intent, and for a backfill.
    pub fn of(rebuilt: bool) -> Self {
        Self { own: !rebuilt, ..Self::default() }
    }

    /// Records that a statement with this deadline was sent and got this answer. Returns whether the answer alone
    /// proves that the rows are stored. [`InsertAnswer::Written`] proves this for the first statement of a batch that
    /// this owner declared itself: nobody else could know the token, so ClickHouse cannot have skipped the rows as
    /// repeats.
    pub fn sent(&mut self, deadline: UnixMillis, answer: InsertAnswer) -> bool {
        let first = self.own && self.never_sent();
        self.last = Some((deadline, answer));
        first && answer == InsertAnswer::Written
    }

    /// Whether no statement has been sent in these attempts yet.
    pub fn never_sent(&self) -> bool {
        self.last.is_none()
    }

    /// Whether the rows must be sent under another token, because ClickHouse remembers the original token but has lost
    /// the part.
    pub fn renamed(&self) -> bool {
        self.parts_lost() > 0
    }

    /// Makes the cell wait until `until`, but at most for [`MAX_INSERT_LIFETIME_MS`] from `now`. If ClickHouse's clock
    /// was ahead and has been set back, `until` may be hours away. The wait must not last that long.
    fn wait(&mut self, until: UnixMillis, now: UnixMillis) -> Verdict {
        let until = until.min(UnixMillis(now.0 + MAX_INSERT_LIFETIME_MS));
        self.wait = Some(until);
        Verdict::Wait(until)
    }

    /// Number of parts that ClickHouse acknowledged but does not have. The first missing part does not count, because
    /// it may still appear: ClickHouse may have acknowledged the rows as repeats of an earlier statement with the same
    /// token, and the earlier statement may not have written its part yet.
    pub fn parts_lost(&self) -> u8 {
        self.lost.saturating_sub(1)
    }
}

/// What to do about a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The rows are in ClickHouse, or ClickHouse accepted them and their table partition has expired.
    Applied,
    /// Send the rows, unchanged, and under the same token unless [`Attempts::renamed`] requires another one.
    Send,
    /// Check again at this moment: an earlier statement may run until then.
    Wait(UnixMillis),
    /// Send nothing more until an operator acts.
    Stop(StopCause),
}

/// Why the rows of a cell must not be sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StopCause {
    /// The marker is after the start of this batch and before its end, so rows of a different batch were inserted.
    #[error("its marker is {0}, which is inside the declared batch")]
    ForeignMarker(NextOffset),
    /// ClickHouse answered three times, under two tokens, that the rows are written, and does not have them.
    #[error("clickhouse acknowledged its rows three times and does not have them")]
    LostParts,
}

/// Decides what to do about a cell whose `marker` was read at `now` on ClickHouse's clock.
///
/// A cell that was stopped stays stopped, even if its marker changes later. Otherwise a caller that judges the cell
/// again would send the rows again to a ClickHouse that loses them.
pub fn judge(target: &Target, attempts: &mut Attempts, marker: NextOffset, now: UnixMillis) -> Verdict {
    if let Some(cause) = attempts.stopped {
        return Verdict::Stop(cause);
    }
    let verdict = judge_running(target, attempts, marker, now);
    if let Verdict::Stop(cause) = verdict {
        attempts.stopped = Some(cause);
    }
    verdict
}

fn judge_running(target: &Target, attempts: &mut Attempts, marker: NextOffset, now: UnixMillis) -> Verdict {
    if marker >= target.end {
        return Verdict::Applied;
    }
    if marker > target.start {
        return Verdict::Stop(StopCause::ForeignMarker(marker));
    }
    if let Some(until) = attempts.wait {
        if now < until {
            return attempts.wait(until, now);
        }
        attempts.wait = None;
        return if attempts.lost > 2 { Verdict::Stop(StopCause::LostParts) } else { Verdict::Send };
    }
    match attempts.last {
        // The table partition has expired: ClickHouse has dropped it with its marker, or may do so at any moment.
        Some((_, InsertAnswer::Accepted | InsertAnswer::Written))
            if target.expires_at.is_some_and(|ends| ends <= now) =>
        {
            Verdict::Applied
        }
        // ClickHouse reported the rows as written, so it knows the token. The marker was read before the deadline, and
        // shows that the part is missing.
        Some((deadline, InsertAnswer::Written)) if now < deadline => {
            attempts.lost = attempts.lost.saturating_add(1);
            attempts.wait(UnixMillis(deadline.0 + MAX_EXECUTION_MS), now)
        }
        _ => Verdict::Send,
    }
}

#[cfg(test)]
mod tests {
    use schemas::time::HOUR;

    use super::*;

    const TARGET: Target = Target { start: NextOffset::ZERO, end: NextOffset::new(5), expires_at: None };
    const NONE: NextOffset = NextOffset::ZERO;

    fn at(millis: i64) -> UnixMillis {
        UnixMillis(millis)
    }

    fn attempts(deadline: i64, answer: InsertAnswer) -> Attempts {
        let mut attempts = Attempts::default();
        attempts.sent(at(deadline), answer);
        attempts
    }

    #[test]
    fn a_check_finds_a_cell_applied_only_by_its_marker() {
        for mut attempts in
            [Attempts::default(), attempts(10, InsertAnswer::Written), attempts(10, InsertAnswer::None)]
        {
            assert_eq!(judge(&TARGET, &mut attempts, TARGET.end, at(0)), Verdict::Applied);
            assert_ne!(judge(&TARGET, &mut attempts, NONE, at(0)), Verdict::Applied);
        }
    }

    #[test]
    fn only_the_first_answer_for_a_self_declared_batch_proves_its_rows() {
        let mut own = Attempts::of(false);
        assert!(own.sent(at(10), InsertAnswer::Written));
        assert!(!own.sent(at(20), InsertAnswer::Written), "the answer to a second statement proves nothing");
        for unproved in [InsertAnswer::None, InsertAnswer::Accepted] {
            let mut attempts = Attempts::of(false);
            assert!(!attempts.sent(at(10), unproved));
            assert!(!attempts.sent(at(20), InsertAnswer::Written), "this statement is not the first one");
        }
        assert!(
            !Attempts::of(true).sent(at(10), InsertAnswer::Written),
            "a batch that was read from an intent may have been sent before"
        );
    }

    #[test]
    fn an_answer_counts_as_written_only_in_time_and_with_all_rows() {
        let validity = Duration::from_millis(STATEMENT_VALIDITY_MS.unsigned_abs());
        for (rows, elapsed, expected) in [
            (Some(3), Duration::ZERO, InsertAnswer::Written),
            (Some(3), validity - Duration::from_millis(1), InsertAnswer::Written),
            (Some(3), validity, InsertAnswer::Accepted),
            (Some(0), Duration::ZERO, InsertAnswer::Accepted),
            (Some(4), Duration::ZERO, InsertAnswer::Accepted),
            (None, Duration::ZERO, InsertAnswer::Accepted),
        ] {
            assert_eq!(InsertAnswer::of(rows, 3, elapsed), expected, "{rows:?} after {elapsed:?}");
        }
    }

    #[test]
    fn rows_are_sent_again_after_an_unknown_answer_or_a_past_deadline() {
        assert_eq!(judge(&TARGET, &mut Attempts::default(), NONE, at(0)), Verdict::Send);
        assert_eq!(judge(&TARGET, &mut attempts(10, InsertAnswer::None), NONE, at(5)), Verdict::Send);
        assert_eq!(judge(&TARGET, &mut attempts(10, InsertAnswer::Written), NONE, at(10)), Verdict::Send);
        assert!(!attempts(10, InsertAnswer::Written).renamed());
    }

    #[test]
    fn a_lost_part_is_sent_again_then_renamed_and_then_the_cell_is_stopped() {
        let mut attempts = Attempts::default();
        let mut now = 0;
        for renamed in [false, false, true] {
            assert_eq!(attempts.renamed(), renamed);
            attempts.sent(at(now + 10), InsertAnswer::Written);
            let until = at(now + 10 + MAX_EXECUTION_MS);
            assert_eq!(judge(&TARGET, &mut attempts, NONE, at(now + 5)), Verdict::Wait(until));
            assert_eq!(judge(&TARGET, &mut attempts, NONE, at(now + 6)), Verdict::Wait(until));
            now = until.0;
            let expected = if renamed { Verdict::Stop(StopCause::LostParts) } else { Verdict::Send };
            assert_eq!(judge(&TARGET, &mut attempts, NONE, at(now)), expected);
        }
        assert_eq!(attempts.parts_lost(), 2, "one lost part for each token");
    }

    #[test]
    fn a_clock_set_back_prolongs_a_wait_by_at_most_one_statement() {
        const BACK: i64 = 3 * HOUR;
        let waits =
            |now: i64| (now + MAX_INSERT_LIFETIME_MS, Verdict::Wait(at(now + MAX_INSERT_LIFETIME_MS)));
        // The clock goes back either before the first check, or during the wait.
        let mut early = attempts(BACK + STATEMENT_VALIDITY_MS, InsertAnswer::Written);
        let mut late = early;
        let (due, wait) = waits(0);
        assert_eq!(judge(&TARGET, &mut early, NONE, at(0)), wait);
        assert_eq!(judge(&TARGET, &mut late, NONE, at(BACK)), waits(BACK).1);
        assert_eq!(judge(&TARGET, &mut late, NONE, at(0)), wait);
        for mut attempts in [early, late] {
            assert_eq!(judge(&TARGET, &mut attempts, NONE, at(due - 1)), wait);
            assert_eq!(judge(&TARGET, &mut attempts, NONE, at(due)), Verdict::Send);
        }
    }

    #[test]
    fn a_part_counts_as_lost_once_no_earlier_statement_can_write_it() {
        let mut attempts = attempts(10, InsertAnswer::Written);
        assert_eq!(judge(&TARGET, &mut attempts, NONE, at(5)), Verdict::Wait(at(10 + MAX_EXECUTION_MS)));
        assert_eq!((attempts.parts_lost(), attempts.renamed()), (0, false));
        assert_eq!(judge(&TARGET, &mut attempts, NONE, at(10 + MAX_EXECUTION_MS)), Verdict::Send);
        attempts.sent(at(2 * MAX_EXECUTION_MS), InsertAnswer::Written);
        assert_eq!(
            judge(&TARGET, &mut attempts, NONE, at(MAX_EXECUTION_MS)),
            Verdict::Wait(at(3 * MAX_EXECUTION_MS))
        );
        assert_eq!((attempts.parts_lost(), attempts.renamed()), (1, true));
    }

    #[test]
    fn a_part_that_appears_during_the_wait_is_applied() {
        let mut attempts = attempts(10, InsertAnswer::Written);
        assert_eq!(judge(&TARGET, &mut attempts, NONE, at(5)), Verdict::Wait(at(10 + MAX_EXECUTION_MS)));
        assert_eq!(judge(&TARGET, &mut attempts, TARGET.end, at(6)), Verdict::Applied);
    }

    #[test]
    fn a_stopped_cell_is_never_sent_again_however_often_it_is_checked() {
        let lost = Attempts { lost: 3, wait: Some(at(0)), ..attempts(10, InsertAnswer::Written) };
        for (mut attempts, marker, why) in [
            (lost, NONE, StopCause::LostParts),
            (Attempts::default(), NextOffset::new(3), StopCause::ForeignMarker(NextOffset::new(3))),
        ] {
            assert_eq!(judge(&TARGET, &mut attempts, marker, at(0)), Verdict::Stop(why));
            for look in 0..1000 {
                // No later marker changes the verdict, whether the marker is read before, at or after the last
                // deadline.
                for marker in [NONE, marker, TARGET.end] {
                    assert_eq!(judge(&TARGET, &mut attempts, marker, at(look)), Verdict::Stop(why));
                }
            }
        }
    }

    #[test]
    fn an_expired_cell_is_applied_after_one_successful_answer() {
        let target = Target { expires_at: Some(at(100)), ..TARGET };
        assert_eq!(judge(&target, &mut Attempts::default(), NONE, at(100)), Verdict::Send);
        assert_eq!(judge(&target, &mut attempts(110, InsertAnswer::None), NONE, at(100)), Verdict::Send);
        for successful in [InsertAnswer::Accepted, InsertAnswer::Written] {
            assert_eq!(judge(&target, &mut attempts(110, successful), NONE, at(100)), Verdict::Applied);
        }
        assert_ne!(judge(&target, &mut attempts(110, InsertAnswer::Written), NONE, at(99)), Verdict::Applied);
    }

    #[test]
    fn a_cell_is_expired_only_if_the_local_clock_agrees() {
        let target = Target { expires_at: Some(at(100)), ..TARGET };
        for (ours, applied) in [(0, false), (99, false), (100, true), (1000, true)] {
            let verdict = judge(
                &target.by_our_clock(at(ours)),
                &mut attempts(110, InsertAnswer::Written),
                NONE,
                at(105),
            );
            assert_eq!(verdict == Verdict::Applied, applied, "{ours}");
        }
        assert_eq!(TARGET.by_our_clock(at(1000)), TARGET);
    }

    #[test]
    fn a_marker_inside_the_batch_stops_the_cell() {
        for inside in 1..5 {
            let marker = NextOffset::new(inside);
            let verdict = judge(&TARGET, &mut Attempts::default(), marker, at(0));
            assert_eq!(verdict, Verdict::Stop(StopCause::ForeignMarker(marker)));
        }
        for (marker, verdict) in [(0, Verdict::Send), (5, Verdict::Applied), (6, Verdict::Applied)] {
            let found = judge(&TARGET, &mut Attempts::default(), NextOffset::new(marker), at(0));
            assert_eq!(found, verdict, "{marker}");
        }
    }

    #[test]
    fn a_statement_is_admitted_only_once_and_before_its_deadline() {
        assert!(TARGET.admits(NONE, at(9), at(10)));
        assert!(!TARGET.admits(NONE, at(10), at(10)));
        assert!(!TARGET.admits(NextOffset::new(1), at(0), at(10)));
        assert!(!TARGET.admits(TARGET.end, at(0), at(10)));
    }
}
