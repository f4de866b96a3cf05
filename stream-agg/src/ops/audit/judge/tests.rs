use schemas::rollup::Rollups;

use super::*;

const TODAY: i64 = 20_000;

/// A frame that compares the records of the day `from` and later days, and has all raw rows from two days before `from`
/// on. If `from` is `None`, nothing has expired and everything is compared.
fn frame(from: Option<i64>) -> Frame {
    Frame {
        now: UnixMillis(TODAY * DAY),
        progress: BTreeMap::new(),
        floors: BTreeMap::new(),
        compared_from: from,
        raw_dropped_before: None,
        whole_from: from.map(|from| from - 2),
        time: schemas::row::TimeLimits::default(),
    }
}

const KEY: Key = (0, 3, 1);

fn ledger(rows: u64, digest: u64) -> BTreeMap<Key, LedgerSpan> {
    [(KEY, LedgerSpan { records: 2, rows, digest, ..LedgerSpan::default() })].into()
}

fn raw(rows: u64, digest: u64) -> BTreeMap<Key, RawSpan> {
    [(KEY, RawSpan { rows, digest })].into()
}

#[test]
fn equal_sums_are_sound_and_a_swap_of_rows_is_not() {
    assert!(differing(&ledger(5, 77), &raw(5, 77)).is_empty());
    assert_eq!(differing(&ledger(5, 77), &raw(5, 78)), [KEY]);
    assert_eq!(differing(&ledger(5, 77), &raw(4, 77)), [KEY]);
    assert_eq!(differing(&ledger(5, 77), &BTreeMap::new()), [KEY]);
}

#[test]
fn a_finding_from_details_names_the_offsets_of_its_span() {
    let details = [(KEY, (1, 1))].into();
    let (tables, findings) = rows(&frame(None), &ledger(5, 77), &raw(5, 78), &BTreeMap::new(), &details);
    assert_eq!(findings.len(), 1);
    assert_eq!(
        findings[0].to_string(),
        "events, offsets 10000-19999 of partition 3: 1 missing, 1 duplicate; found 5, expected 5"
    );
    assert_eq!((tables[1].missing, tables[1].duplicate), (1, 1));
}

#[test]
fn a_span_without_details_is_judged_by_its_number_of_rows() {
    let (tables, _) = rows(&frame(None), &ledger(5, 77), &raw(3, 1), &BTreeMap::new(), &BTreeMap::new());
    assert_eq!((tables[1].missing, tables[1].duplicate), (2, 0));
}

#[test]
fn a_ledger_that_repeats_a_record_or_does_not_balance_is_wrong() {
    let span = LedgerSpan { records: 2, repeated: 1, short: 4, rows: 5, digest: 77, ..LedgerSpan::default() };
    let (tables, findings) =
        rows(&frame(None), &[(KEY, span)].into(), &raw(5, 77), &BTreeMap::new(), &BTreeMap::new());
    assert_eq!((tables[0].missing, tables[0].duplicate), (4, 1));
    assert_eq!((findings.len(), &*findings[0].table), (1, "ledger"));
}

#[test]
fn raw_rows_that_arrived_earlier_are_added_to_those_of_their_span() {
    let mut found = raw(3, u64::MAX);
    add(&mut found, raw(2, 78));
    assert_eq!(found, raw(5, 77));
    assert!(differing(&ledger(5, 77), &found).is_empty());
    add(&mut found, [((1, 0, 0), RawSpan { rows: 1, digest: 9 })].into());
    assert_eq!(differing(&ledger(5, 77), &found), [(1, 0, 0)]);
}

/// Judges a span with five stored lines and `found` raw rows. ClickHouse may have dropped the raw rows of two of the
/// lines. `wrong` has the numbers of missing and duplicate raw rows that must be reported.
#[track_caller]
fn check_dropped(found: u64, details: &[(Key, (u64, u64))], wrong: (u64, u64)) {
    let arrivals = [(KEY, SpanArrivals { since: TODAY - 40, may_be_dropped: 2 })].into();
    let details = details.iter().copied().collect();
    let (tables, findings) = rows(&frame(None), &ledger(5, 77), &raw(found, 1), &arrivals, &details);
    let events = &tables[1];
    assert_eq!((events.missing, events.duplicate), wrong);
    assert_eq!((events.expected, events.found), (found.clamp(3, 5), found));
    assert_eq!(findings.is_empty(), wrong == (0, 0));
    assert_eq!(
        events.note, "2 lines may have arrived before 2024-09-04, so their raw rows may have expired",
        "the note names the day 30 days before today"
    );
}

#[test]
fn raw_rows_that_expired_before_their_record_are_not_missing() {
    for found in [3, 4, 5] {
        check_dropped(found, &[], (0, 0));
    }
    check_dropped(2, &[], (1, 0));
    check_dropped(6, &[], (0, 1));
    check_dropped(4, &[(KEY, (1, 0))], (1, 0));
}

#[test]
fn spans_that_cannot_have_lost_rows_to_expiry_are_read_first() {
    let dropped = |span| ((0, 0, span), SpanArrivals { since: 0, may_be_dropped: u64::from(span < 30) });
    let arrivals: BTreeMap<_, _> = (0..40).map(dropped).collect();
    let differing: Vec<Key> = (0..50).map(|span| (0, 0, span)).collect();
    let detailed: Vec<_> = spans_to_detail(&differing, &arrivals).iter().map(|key| key.2).collect();
    assert_eq!(detailed, (30..50).collect::<Vec<_>>());
    let differing = &differing[..32];
    let detailed: Vec<_> = spans_to_detail(differing, &arrivals).iter().map(|key| key.2).collect();
    assert_eq!(detailed, [30, 31].into_iter().chain(0..18).collect::<Vec<_>>());
}

const ALWAYS: DeclaredIn = DeclaredIn { declaration_hashes: Vec::new(), always: true };
const LATER: DeclaredIn = DeclaredIn { declaration_hashes: Vec::new(), always: false };

/// Judges one day of a rollup that holds `found` events. `must` has two numbers of raw rows: those that were stored
/// under a declaration with the rollup, and those that were stored under any declaration. `wrong` has the numbers of
/// missing and duplicate events that must be reported.
#[track_caller]
fn check(
    name: &str,
    frame: &Frame,
    day: i64,
    must: (u64, u64),
    found: u64,
    declared_in: &DeclaredIn,
    wrong: (u64, u64),
) {
    let rollups = Rollups::built_in();
    let sums = vec![SnapshotRow::Sum { day, sum: found }];
    let snapshot = Snapshot::new(rollups.get(name).unwrap(), sums);
    let (table, _) = rollup(frame, &snapshot, 0, &[(day, vec![must])].into(), declared_in, None);
    assert_eq!((table.missing, table.duplicate), wrong, "{table:?}");
}

#[test]
fn a_rollup_equals_the_raw_rows_of_each_day() {
    let all = frame(None);
    check("event_hourly", &all, 11_000, (5, 5), 5, &ALWAYS, (0, 0));
    check("event_hourly", &all, 11_000, (5, 5), 3, &ALWAYS, (2, 0));
    check("event_hourly", &all, 11_000, (5, 5), 9, &ALWAYS, (0, 4));
}

#[test]
fn a_day_whose_raw_rows_may_have_expired_may_hold_more() {
    let recent = frame(Some(TODAY - 2));
    check("event_hourly", &recent, TODAY - 9, (5, 5), 9, &ALWAYS, (0, 0));
    check("event_hourly", &recent, TODAY - 9, (5, 5), 4, &ALWAYS, (1, 0));
    check("event_hourly", &recent, TODAY, (5, 5), 9, &ALWAYS, (0, 4));
}

#[test]
fn a_rollup_declared_later_holds_between_its_own_and_all_events() {
    let all = frame(None);
    for found in [2, 4, 5] {
        check("event_hourly", &all, TODAY, (2, 5), found, &LATER, (0, 0));
    }
    check("event_hourly", &all, TODAY, (2, 5), 1, &LATER, (1, 0));
    check("event_hourly", &all, TODAY, (2, 5), 6, &LATER, (0, 1));
}

#[test]
fn days_past_the_retention_of_a_rollup_are_left_out() {
    check("event_minutely", &frame(None), TODAY - 9, (5, 5), 0, &ALWAYS, (0, 0));
    check("event_minutely", &frame(None), TODAY - 3, (5, 5), 0, &ALWAYS, (5, 0));
    // This rollup is kept for seven days. `TODAY - 7` expires within the next 24 hours, so it is left out. `TODAY - 6`
    // expires later, so it is compared.
    check("event_minutely", &frame(None), TODAY - 7, (5, 5), 0, &ALWAYS, (0, 0));
    check("event_minutely", &frame(None), TODAY - 6, (5, 5), 0, &ALWAYS, (5, 0));
}

#[test]
fn a_rollup_whose_where_has_a_number_or_a_deep_path_is_not_compared() {
    for (condition, note) in [
        ("\"props.a\" = [\"b\", \"true\"]", ""),
        ("\"props.a\" = [\"b\", \"1.50\"]", "a condition in `where` compares a number in props as text"),
        ("\"props.a.b.c.d.e\" = \"b\"", "a condition in `where` has a path of too many steps into props"),
    ] {
        let text = format!(
            "[[rollup]]\nname = \"of_a\"\ngrain = \"day\"\ndimensions = [\"event\"]\n\
             where = {{ {condition} }}\nmeasures = {{ events = \"count\" }}\n"
        );
        let rollups = Rollups::parse("", &text).unwrap();
        let snapshot = Snapshot::new(rollups.get("of_a").unwrap(), vec![SnapshotRow::Sum { day: 0, sum: 9 }]);
        let (table, findings) = rollup(&frame(None), &snapshot, 0, &BTreeMap::new(), &ALWAYS, None);
        let expected = if note.is_empty() { (9, 1) } else { (0, 0) };
        assert_eq!((table.duplicate, findings.len()), expected, "{condition}");
        assert_eq!(table.note.trim_start_matches("not compared: "), note);
    }
}

#[test]
fn a_rollup_without_time_is_compared_in_sum_while_nothing_has_expired() {
    check("poll_votes", &frame(None), 0, (5, 5), 4, &ALWAYS, (1, 0));
    check("poll_votes", &frame(Some(TODAY - 2)), 0, (5, 5), 9, &ALWAYS, (0, 0));
}

/// Judges a rollup that holds `found` events. One raw row is missing: the ledger counts five stored lines, but the raw
/// table has only four rows.
#[track_caller]
fn check_beside_a_lost_row(name: &str, found: u64, wrong: (u64, u64)) {
    let rollups = Rollups::built_in();
    let sums = vec![SnapshotRow::Sum { day: 0, sum: found }];
    let snapshot = Snapshot::new(rollups.get(name).unwrap(), sums);
    let (table, findings) =
        rollup(&frame(None), &snapshot, 0, &[(0, vec![(4, 4)])].into(), &ALWAYS, Some(-1));
    assert_eq!((table.missing, table.duplicate), wrong);
    assert_eq!(findings.is_empty(), wrong == (0, 0));
}

#[test]
fn a_rollup_is_not_wrong_because_raw_rows_are_missing() {
    check_beside_a_lost_row("event_hourly", 5, (0, 0));
    check_beside_a_lost_row("event_hourly", 7, (0, 3));
    check_beside_a_lost_row("poll_votes", 5, (0, 0));
}

#[test]
fn a_log_is_reached_up_to_the_highest_marker_of_any_table_partition() {
    let rollups = Rollups::built_in();
    let marker = |expiry, applied_end| SnapshotRow::Marker { expiry, log: (0, 3), applied_end };
    let snapshot = Snapshot::new(
        rollups.get("event_hourly").unwrap(),
        [marker(1, 5), marker(1, 9), marker(1, 7), marker(2, 8)].into(),
    );
    assert_eq!(snapshot.cuts, [((1, (0, 3)), 9), ((2, (0, 3)), 8)].into());
    assert_eq!(reached(&[snapshot]), [((0, 3), 9)].into());
}

#[test]
fn a_rollup_that_is_ahead_of_progress_is_not_judged() {
    let rollups = Rollups::built_in();
    let marker = SnapshotRow::Marker { expiry: 20_800, log: (0, 3), applied_end: 7 };
    let mut snapshot = Snapshot::new(
        rollups.get("event_hourly").unwrap(),
        vec![marker, SnapshotRow::Sum { day: TODAY, sum: 9 }],
    );
    assert_eq!(reached(std::slice::from_ref(&snapshot)), [((0, 3), 7)].into());
    snapshot.leave_out(&[(0, 2), (1, 3)]);
    let judged = |snapshot| rollup(&frame(None), snapshot, 0, &BTreeMap::new(), &ALWAYS, None).0;
    assert_eq!(judged(&snapshot).duplicate, 9, "the progress of other logs does not matter");
    snapshot.leave_out(&[(0, 3)]);
    let (table, findings) = rollup(&frame(None), &snapshot, 0, &BTreeMap::new(), &ALWAYS, None);
    assert_eq!((table.duplicate, findings.len()), (0, 0));
    assert!(table.note.contains("partition 3"), "{}", table.note);
}
