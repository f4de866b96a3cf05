use schemas::row::TimeLimits;
use schemas::time::UnixMillis;

use super::*;
use crate::ops::audit::read::SPAN;

const LOG: Log = (0, 3);

/// A frame in which a log is compared in `[floor, next)`.
fn frame(floor: u64, next: u64) -> Frame {
    Frame {
        now: UnixMillis(0),
        progress: [(LOG, next)].into(),
        floors: [(LOG, floor)].into(),
        compared_from: None,
        raw_dropped_before: None,
        whole_from: None,
        time: TimeLimits::default(),
    }
}

/// A ledger with these spans. Each span is its first offset, its last offset and its number of records.
fn ledger(spans: &[(u64, u64, u64)]) -> BTreeMap<Key, LedgerSpan> {
    let span = |(first, last, records): &(u64, u64, u64)| {
        let span = LedgerSpan { records: *records, first: *first, last: *last, ..LedgerSpan::default() };
        ((0, 3, first / SPAN), span)
    };
    spans.iter().map(span).collect()
}

/// Checks what [`count`] returns for these spans: the numbers of expected and found offsets, the gaps between spans,
/// and the spans that have gaps between their records.
#[track_caller]
fn check(
    (floor, next): (u64, u64),
    spans: &[(u64, u64, u64)],
    numbers: (u64, u64),
    between: &[(u64, u64)],
    within: &[u64],
) {
    let counted = count(&frame(floor, next), &ledger(spans));
    let gap =
        |(first, last): &(u64, u64)| Gap { log_generation: 0, partition: 3, first: *first, last: *last };
    let offsets = Offsets { expected: numbers.0, found: numbers.1, gaps: between.iter().map(gap).collect() };
    let within = within.iter().map(|span| (0, 3, *span)).collect();
    assert_eq!(counted, Counted { offsets, within });
}

#[test]
fn a_ledger_with_a_row_for_each_offset_has_no_gap() {
    check((0, 0), &[], (0, 0), &[], &[]);
    check((0, 1), &[(0, 0, 1)], (1, 1), &[], &[]);
    check((0, 10_002), &[(0, 9_999, 10_000), (10_000, 10_001, 2)], (10_002, 10_002), &[], &[]);
    check((9_998, 10_002), &[(9_998, 9_999, 2), (10_000, 10_001, 2)], (4, 4), &[], &[]);
}

#[test]
fn an_offset_without_a_row_is_in_a_gap_wherever_it_is() {
    check((0, 10), &[(0, 9, 9)], (10, 9), &[], &[0]);
    check((0, 11), &[(0, 9, 10)], (11, 10), &[(10, 10)], &[]);
    check((7, 10), &[(8, 9, 2)], (3, 2), &[(7, 7)], &[]);
    let spans = [(0, 9_998, 9_999), (10_001, 10_002, 2)];
    check((0, 10_003), &spans, (10_003, 10_001), &[(9_999, 10_000)], &[]);
    // Entire spans have no row.
    check((0, 40_003), &[(0, 1, 2), (40_000, 40_002, 2)], (40_003, 4), &[(2, 39_999)], &[4]);
}

#[test]
fn offsets_before_the_first_row_of_a_whole_ledger_are_not_gaps() {
    check((0, 10), &[(8, 9, 2)], (2, 2), &[], &[]);
}

#[test]
fn gaps_are_found_in_each_log_separately() {
    let mut frame = frame(0, 10);
    frame.progress = [((0, 3), 2), ((1, 3), 2), ((1, 4), 7)].into();
    let two = |first| LedgerSpan { records: 2, first, last: first + 1, ..LedgerSpan::default() };
    let spans = [((0, 3, 0), two(0)), ((1, 3, 0), two(0)), ((1, 4, 0), two(0)), ((2, 0, 0), two(5))];
    let Offsets { expected, found, gaps } = count(&frame, &spans.into()).offsets;
    assert_eq!((expected, found), (13, 8));
    assert_eq!(gaps, [Gap { log_generation: 1, partition: 4, first: 2, last: 6 }]);
}

#[test]
fn a_gap_is_named_with_its_offsets() {
    let gap = Gap { log_generation: 0, partition: 3, first: 5, last: 7 };
    assert_eq!(gap.to_string(), "offsets 5-7 of partition 3: in no ledger row");
    let gap = Gap { log_generation: 1, ..gap };
    assert_eq!(gap.to_string(), "offsets 5-7 of partition 3, log generation 1: in no ledger row");
}
