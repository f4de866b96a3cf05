use proptest::prelude::*;

use super::*;

const WIDE: WindowLimits = WindowLimits { age_ms: DAY, max_ids: 1000 };

fn push(window: &mut Window, offset: i64, time: i64, record: u128, ids: &[u64], limits: &WindowLimits) {
    window.expire(UnixMillis(time), limits);
    window.push(Offset::new(offset), UnixMillis(time), Uuid::from_u128(record), ids, limits);
}

fn known(record: u128) -> u64 {
    record_id(Uuid::from_u128(record)).unwrap()
}

#[test]
fn a_record_is_forgotten_once_it_is_older_than_the_maximum_age() {
    let mut window = Window::new();
    push(&mut window, 10, 0, 1, &[7], &WIDE);
    window.expire(UnixMillis(DAY), &WIDE);
    assert!(window.contains(7) && window.contains(known(1)));
    window.expire(UnixMillis(DAY + 1), &WIDE);
    assert!(!window.contains(7) && !window.contains(known(1)));
    assert_eq!((window.floor(), window.newest(), window.digest()), (None, None, Digest::default()));
}

#[test]
fn whole_records_are_forgotten_when_there_are_too_many_ids() {
    let limits = WindowLimits { max_ids: 4, ..WIDE };
    let mut window = Window::new();
    push(&mut window, 10, 0, 1, &[7, 8], &limits);
    push(&mut window, 11, 0, 2, &[], &limits);
    assert_eq!((window.floor(), window.digest().count), (Some(Offset::new(10)), 4));
    push(&mut window, 12, 0, 3, &[], &limits);
    assert_eq!((window.floor(), window.digest().count), (Some(Offset::new(11)), 2));
    assert!(!window.contains(7) && !window.contains(8) && window.contains(known(2)));
    push(&mut window, 13, 5, 4, &[1, 2, 3, 4, 5], &limits);
    assert_eq!(window.floor(), None, "a record with more than `max_ids` ids is not remembered");
}

#[test]
fn the_id_of_a_repeated_record_stays_until_its_last_repeat_is_forgotten() {
    let mut window = Window::new();
    for offset in 10..13 {
        push(&mut window, offset, offset, 1, &[], &WIDE);
    }
    window.expire(UnixMillis(DAY + 12), &WIDE);
    assert!(window.contains(known(1)));
    window.expire(UnixMillis(DAY + 13), &WIDE);
    assert!(!window.contains(known(1)));
}

#[test]
fn a_record_without_ids_is_not_remembered() {
    let mut window = Window::new();
    push(&mut window, 10, 3, 0, &[], &WIDE);
    assert_eq!((window.floor(), window.newest(), window.digest()), (None, None, Digest::default()));
}

#[test]
fn records_without_ids_take_no_room_and_still_expire_older_records() {
    let mut window = Window::new();
    push(&mut window, 0, 0, 1, &[7], &WIDE);
    for offset in 1..=1_000_000 {
        push(&mut window, offset, 1, 0, &[], &WIDE);
    }
    assert_eq!((window.records.len(), window.floor()), (1, Some(Offset::new(0))));
    push(&mut window, 1_000_001, DAY + 1, 0, &[], &WIDE);
    assert_eq!((window.records.len(), window.floor()), (0, None), "the older record is forgotten");
}

#[test]
fn ids_and_digests_are_the_same_in_every_release() {
    // The ledger contains these ids, and commits contain the digest. If a later release computed other ids for the same
    // events, it would not recognize repeats of stored events. If it computed another digest for the same ids, it would
    // refuse the windows that it restores.
    let event = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    assert_ne!(line_id("default", event), line_id("other", event));
    let mut window = Window::new();
    window.append(Offset::new(42), UnixMillis(0), event, &[7]);
    let found = (line_id("default", event), record_id(event), window.digest().to_string());
    let expected = (
        3_211_563_442_547_050_482,
        Some(3_593_224_264_447_445_895),
        "2-678653ddda7c69e14509dc9aa393e78e".to_owned(),
    );
    assert_eq!(found, expected);
}

#[test]
fn a_digest_is_read_back() {
    for digest in [Digest::default(), Digest { count: 1_000_000, sum: u128::MAX }] {
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
    for text in ["", "1", "1-", "-1", "x-1", "1-1-1", "1-100000000000000000000000000000000"] {
        assert_eq!(text.parse::<Digest>(), Err(DigestError(text.to_owned())));
    }
}

#[test]
fn a_window_mark_has_the_floor_and_the_digest_of_the_window() {
    let limits = WindowLimits { max_ids: 4, ..WIDE };
    let mut window = Window::new();
    let next = NextOffset::new(13);
    assert_eq!(window.mark(next), WindowMark { floor: next, digest: Digest::default() });
    push(&mut window, 10, 0, 1, &[7], &limits);
    push(&mut window, 12, 0, 2, &[8], &limits);
    assert_eq!(window.mark(next), WindowMark { floor: NextOffset::new(10), digest: window.digest() });
    push(&mut window, 13, 0, 3, &[9], &limits);
    assert_eq!(window.mark(NextOffset::new(14)).floor, NextOffset::new(12));
}

#[test]
fn a_window_restored_from_a_ledger_with_missing_or_other_records_is_refused() {
    let restored = |rows: &[(i64, u128, u64)]| {
        let mut window = Window::new();
        for (offset, record, id) in rows {
            window.append(Offset::new(*offset), UnixMillis(0), Uuid::from_u128(*record), &[*id]);
        }
        window
    };
    let committed = restored(&[(10, 1, 7), (11, 2, 8)]).mark(NextOffset::new(12));
    assert!(restored(&[(10, 1, 7), (11, 2, 8)]).verified(&committed).is_ok());
    for wrong in [&[][..], &[(10, 1, 7)], &[(10, 1, 7), (11, 2, 9)], &[(10, 1, 7), (12, 2, 8)]] {
        let found = restored(wrong).digest();
        assert_eq!(restored(wrong).verified(&committed).unwrap_err(), found, "{wrong:?}");
    }
}

/// A record to add to a window.
#[derive(Debug, Clone)]
struct Sent {
    /// The offset of the record minus the offset of the record before it.
    gap: i64,
    /// 3 ms plus the time of the record minus the time of the record before it.
    time: i64,
    record: u128,
    /// The ids of its lines, including repeated lines.
    ids: Vec<u64>,
}

/// Records in which ids of records and ids of lines occur repeatedly.
fn records() -> impl Strategy<Value = Vec<Sent>> {
    let sent = (1..3_i64, 0..50_i64, 0..6_u128, prop::collection::vec(0..40_u64, 0..6))
        .prop_map(|(gap, time, record, ids)| Sent { gap, time, record, ids });
    prop::collection::vec(sent, 0..60)
}

proptest! {
    /// A window is restored from the ledger rows at and after the floor of the original window. The restored window
    /// equals the original, and the two windows stay equal while any further records are added to both.
    #[test]
    fn a_restored_window_equals_the_original(
        before in records(), after in records(), age_ms in 0..400_i64, max_ids in 0..40_usize,
    ) {
        let limits = WindowLimits { age_ms, max_ids };
        let (mut offset, mut time, mut ledger) = (0, 0, Vec::new());
        let mut original = Window::new();
        // Adds a record to each window and returns its row of the ledger. As in the decoder, only new ids are stored.
        let mut step = |sent: &Sent, windows: &mut [&mut Window]| {
            offset += sent.gap;
            // Times increase, with an occasional step back.
            time += sent.time - 3;
            let mut stored = Vec::new();
            for window in windows.iter_mut() {
                window.expire(UnixMillis(time), &limits);
                stored = Vec::new();
                for id in &sent.ids {
                    if !window.contains(*id) && !stored.contains(id) {
                        stored.push(*id);
                    }
                }
                let at = Offset::new(offset);
                window.push(at, UnixMillis(time), Uuid::from_u128(sent.record), &stored, &limits);
            }
            (Offset::new(offset), UnixMillis(time), Uuid::from_u128(sent.record), stored)
        };
        for sent in &before {
            ledger.push(step(sent, &mut [&mut original]));
        }
        let mut restored = Window::new();
        let floor = original.floor();
        for (offset, time, record, ids) in &ledger {
            if floor.is_some_and(|floor| *offset >= floor) {
                restored.append(*offset, *time, *record, ids);
            }
        }
        equal(&original, &restored)?;
        for sent in &after {
            step(sent, &mut [&mut original, &mut restored]);
            equal(&original, &restored)?;
        }
        original.expire(UnixMillis(i64::MAX), &limits);
        prop_assert_eq!(original.digest(), Digest::default());
        prop_assert!(original.set.is_empty() && original.extra_copies.is_empty());
    }
}

fn equal(a: &Window, b: &Window) -> Result<(), TestCaseError> {
    prop_assert_eq!(a.floor(), b.floor());
    prop_assert_eq!(a.newest(), b.newest());
    prop_assert_eq!(a.digest(), b.digest());
    for id in (0..40).chain((1..6).map(known)) {
        prop_assert_eq!(a.contains(id), b.contains(id), "id {}", id);
    }
    Ok(())
}
