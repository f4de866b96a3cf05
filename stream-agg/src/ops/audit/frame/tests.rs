use super::*;

const TODAY: i64 = 20_000;
const LOG: Log = (0, 3);

/// A system that was started `age` days ago and still holds all rows since then.
fn young(age: i64) -> Held {
    let began = TODAY - age;
    Held { now: UnixMillis(TODAY * DAY + 5), since: began, raw: Some(began), stored: Some(began) }
}

fn frame(held: &Held, days: u16) -> Frame {
    Frame::new(held, days, [(LOG, 50)].into(), TimeLimits::default())
}

/// Checks three days of the frame: the first day, by Kafka's time, that is compared, the first day of arrival that is
/// read, and the first day of arrival from which on all raw rows exist. Each is a number of days before today.
#[track_caller]
fn check(held: &Held, days: u16, compared_from: Option<i64>, raw_from: Option<i64>, whole_from: Option<i64>) {
    let found = frame(held, days);
    let before = |day: Option<i64>| day.map(|day| TODAY - day);
    assert_eq!(
        [found.compared_from, found.raw_from(), found.whole_from].map(before),
        [compared_from, raw_from, whole_from],
        "{found:?}"
    );
}

#[test]
fn everything_is_compared_until_something_can_have_expired() {
    check(&young(0), 2, None, None, None);
    check(&young(2), 2, None, None, None);
    check(&young(3), 2, Some(2), Some(4), Some(4));
    check(&young(29), 29, None, None, None);
}

#[test]
fn a_day_that_expires_at_midnight_is_not_compared() {
    // Every system that is older than the retention of its tables is in this state.
    let old = Held { since: TODAY - 400, raw: Some(TODAY - 31), stored: Some(TODAY - 30), ..young(0) };
    check(&old, 29, Some(29), Some(31), Some(30));
    check(&old, 2, Some(2), Some(4), Some(4));
    // Kafka held records from before the first start of the system. The ledger keeps their rows one day less than the
    // raw table does.
    let backlog = |age| Held { raw: Some(TODAY - age), stored: Some(TODAY - age), ..young(20) };
    check(&backlog(29), 29, None, None, None);
    check(&backlog(30), 29, Some(29), Some(31), Some(30));
}

#[test]
fn if_raw_rows_may_have_expired_only_the_days_still_kept_are_whole() {
    let whole_from = |held: &Held, days| {
        let mut frame = frame(held, days);
        frame.may_have_lost_raw_rows();
        frame.whole_from.map(|day| TODAY - day)
    };
    assert_eq!(whole_from(&young(0), 29), Some(30));
    assert_eq!(whole_from(&young(400), 2), Some(4));
}

#[test]
fn after_raw_days_were_dropped_only_later_days_are_compared() {
    let dropped = Held { raw: Some(TODAY - 5), ..young(20) };
    check(&dropped, 29, Some(3), Some(5), Some(5));
    check(&dropped, 2, Some(2), Some(4), Some(4));
    assert_eq!(
        (frame(&dropped, 29).raw_dropped_before, frame(&dropped, 29).kept_from()),
        (Some(TODAY - 5), TODAY - 5)
    );
    // A spool held a record, so its line arrived before the first day of the ledger: no raw row was dropped.
    assert_eq!(frame(&Held { raw: Some(TODAY - 25), ..young(20) }, 29).raw_dropped_before, None);
    // If a table is empty, it is unknown whether anything was dropped.
    for held in [Held { raw: None, ..young(20) }, Held { stored: None, ..young(20) }] {
        check(&held, 29, None, None, None);
    }
}

#[test]
fn raw_rows_are_kept_while_the_audit_runs() {
    assert_eq!(frame(&young(0), 2).kept_from(), TODAY - 30);
}

#[test]
fn a_day_is_whole_if_none_of_its_raw_rows_can_have_expired() {
    for (ahead, whole) in [(0, 4), (1, 3), (DAY - 1, 3), (DAY, 3), (DAY + 1, 2)] {
        let time = TimeLimits { ahead, ..TimeLimits::default() };
        let frame = Frame::new(&young(400), 2, BTreeMap::new(), time);
        assert!(frame.is_whole(TODAY - whole) && !frame.is_whole(TODAY - whole - 1), "{ahead} ms ahead");
    }
    assert!(frame(&young(0), 2).is_whole(0));
}

#[test]
fn a_ledger_that_does_not_begin_with_its_log_may_have_lost_raw_rows() {
    let begun = |firsts: &[(Log, u64)]| {
        let mut frame = frame(&young(0), 2);
        frame.set_floors(&firsts.iter().copied().collect());
        assert_eq!(frame.floors, [(LOG, 0)].into(), "all of the log is compared");
        frame.whole_from.map(|day| TODAY - day)
    };
    assert_eq!(begun(&[(LOG, 0)]), None);
    assert_eq!(begun(&[(LOG, 1)]), Some(30));
    assert_eq!(begun(&[]), Some(30));
    let mut empty = Frame::new(&young(0), 2, [(LOG, 0)].into(), TimeLimits::default());
    empty.set_floors(&BTreeMap::new());
    assert_eq!(empty.whole_from, None, "the log never had a record");
}

#[test]
fn a_log_is_compared_from_its_first_offset_in_the_compared_days() {
    let mut frame = frame(&young(3), 2);
    frame.set_floors(&[(LOG, 7)].into());
    assert_eq!((frame.floors, frame.whole_from), ([(LOG, 7)].into(), Some(TODAY - 4)));
}
