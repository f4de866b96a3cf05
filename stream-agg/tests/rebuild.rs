//! A declared batch that another process rebuilds is equal in every byte, however much time has passed.
//!
//! The collector of a pipeline reads a queue of Kafka's client, which needs a broker. So these tests do not run the
//! collector itself: they call the pure functions that it calls, in the same order, and pass in the times.

#![expect(clippy::unwrap_used, reason = "in a test a panic with its line is the best report")]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use schemas::line::Prefix;
use schemas::record::{Head, Kind};
use schemas::rollup::Rollups;
use schemas::time::{DAY, HOUR, MINUTE, UnixMillis};
use schemas::{event, line};
use stream_agg::BatchConfig;
use stream_agg::pipeline::batcher::Batcher;
use stream_agg::protocol::declaration::Declaration;
use stream_agg::protocol::idle::{IdleCheck, WorkState};
use stream_agg::protocol::limits::DecodeLimits;
use stream_agg::protocol::progress::{NextOffset, Offset};
use stream_agg::protocol::window::{Window, WindowLimits, WindowMark};
use stream_agg::rows::batch::Batch;
use stream_agg::rows::cells::{Cell, Source, cells};
use stream_agg::rows::decode::{LedgerEntry, Record, decode};
use uuid::Uuid;

/// Repeats are recognized for ten minutes, as with `DEDUP_WINDOW_AGE=10m`.
const LIMITS: WindowLimits = WindowLimits { age_ms: 10 * MINUTE, max_ids: 1000 };
/// The moment from which the tests count the times of records, in milliseconds since 1970.
const START: i64 = 1_763_697_600_000;

/// A record with one event.
#[derive(Debug, Clone, Copy)]
struct Logged {
    event: u128,
    /// The time at which Kafka appended the record, in milliseconds after [`START`].
    time: i64,
}

/// A process that owns the partition.
struct Owner<'l> {
    log: &'l [Logged],
    limits: DecodeLimits,
    window: Window,
    /// The mark of the window before the open batch, which the commit of that batch contains.
    before: WindowMark,
    batcher: Batcher,
    /// Every record below `read` was read, and every record below `applied` is in every cell.
    read: NextOffset,
    applied: NextOffset,
}

/// A batch as it was declared, and its cells.
struct DeclaredBatch {
    start: NextOffset,
    before: WindowMark,
    cells: Vec<Cell>,
    entries: Vec<LedgerEntry>,
}

impl<'l> Owner<'l> {
    /// The first owner of a partition.
    fn new(log: &'l [Logged], limits: WindowLimits) -> Self {
        let nothing = Window::new().mark(NextOffset::ZERO);
        Self::restored(log, limits, &[], nothing, batcher(NextOffset::ZERO))
    }

    /// An owner that continues after an earlier owner. It restores the window from the `ledger` and compares the window
    /// with the committed mark `before`.
    fn restored(
        log: &'l [Logged],
        limits: WindowLimits,
        ledger: &[LedgerEntry],
        before: WindowMark,
        batcher: Batcher,
    ) -> Self {
        let start = batcher.start();
        let in_window =
            |entry: &&LedgerEntry| entry.offset.next() <= start && before.floor.is_at_or_below(entry.offset);
        let mut window = Window::new();
        for LedgerEntry { offset, kafka_time, record_id, ids, .. } in ledger.iter().filter(in_window) {
            window.append(*offset, *kafka_time, *record_id, ids);
        }
        let window = window.verified(&before).unwrap();
        let limits = DecodeLimits { window: limits, ..DecodeLimits::default() };
        Self { log, limits, window, before, batcher, read: start, applied: start }
    }

    /// Does what a collector does when its queue is empty at the time `now`, in milliseconds after [`START`]. Returns
    /// whether the partition is idle.
    fn finds_queue_empty(&mut self, now: i64) -> bool {
        let Some(newest) = self.window.newest() else { return false };
        let state = match self.batcher.deadline() {
            _ if self.batcher.is_rebuilding() => WorkState::Rebuilding,
            Some(_) => WorkState::OpenBatch,
            None => WorkState::NoBatch,
        };
        let Self { read, applied, .. } = *self;
        let idle_check = IdleCheck { state, read, applied, newest, window_age_ms: self.limits.window.age_ms };
        let end = self.log.iter().filter(|record| record.time <= now).count() as i64;
        let idle = idle_check.is_idle(UnixMillis(START + now), NextOffset::new(end));
        if idle {
            self.window.clear();
            self.before = self.window.mark(self.batcher.start());
        }
        idle
    }

    /// Reads records up to `last`, turns them into a batch and applies it.
    fn makes_batch_up_to(&mut self, last: i64) -> DeclaredBatch {
        self.makes_batch_slowly(last, &[])
    }

    /// Like [`Owner::makes_batch_up_to`], but before each record the owner finds its queue empty once for each of
    /// `empty_queue_times`, which are milliseconds after the previous record.
    fn makes_batch_slowly(&mut self, last: i64, empty_queue_times: &[i64]) -> DeclaredBatch {
        let mut batch = None;
        for offset in self.read.to_i64()..=last {
            let newest = self.log[..offset as usize].last().map_or(0, |record| record.time);
            for time in empty_queue_times {
                self.finds_queue_empty(newest + time);
            }
            batch = self.reads();
        }
        let batch = batch.or_else(|| self.batcher.close()).unwrap();
        self.applied = batch.end;
        if self.batcher.is_rebuilt() {
            self.batcher = batcher(batch.end);
        }
        let before = std::mem::replace(&mut self.before, self.window.mark(batch.end));
        let cells = cells(
            &batch,
            &Declaration::built_in(),
            Source { log_generation: 0, partition: 3, declaration_hash: 1 },
        )
        .all;
        DeclaredBatch { start: batch.start, before, cells, entries: batch.entries }
    }

    /// Reads one record. Returns the batch that it completes.
    fn reads(&mut self) -> Option<Batch> {
        let offset = Offset::new(self.read.to_i64());
        let Logged { event, time } = self.log[self.read.to_i64() as usize];
        let id = Uuid::from_u128(0x1_0000 + u128::from(offset.to_u64()));
        let head = Head { lines: 1, id, spooled: false, kind: Kind::Events, trace: None };
        let (kafka_time, value) = (UnixMillis(START + time), &line(event));
        let record = Record { offset, kafka_time, head: &Ok(head), known: false, skipped: false, value };
        let entry = decode(&record, &self.limits, &mut self.window, self.batcher.decoded_mut()).unwrap();
        self.read = offset.next();
        self.batcher.push(entry, value.len(), Instant::now())
    }
}

impl DeclaredBatch {
    /// A batcher that rebuilds this batch and nothing else.
    fn batcher(&self) -> Batcher {
        Batcher::rebuild(self.start, [self.entries.last().unwrap().offset.next()])
    }

    /// The number of stored lines of each record: 0 for a repeat.
    fn stored(&self) -> Vec<u32> {
        self.entries.iter().map(|entry| entry.stored).collect()
    }
}

/// A batcher whose limits the tests never reach, so that it closes no batch by itself: the tests close the batches.
fn batcher(start: NextOffset) -> Batcher {
    let config = BatchConfig {
        max_rows: 1000.try_into().unwrap(),
        max_bytes: (1 << 20).try_into().unwrap(),
        max_total_bytes: (1 << 20).try_into().unwrap(),
        max_age: Duration::from_secs(3600),
    };
    Batcher::new(config, &Rollups::built_in(), start, [])
}

fn line(event: u128) -> Vec<u8> {
    let sent = format!(r#"{{"event":"a","event_id":"{}"}}"#, Uuid::from_u128(1 + event));
    let prefix = Prefix::new("default", "203.0.113.7".parse().unwrap(), UnixMillis(START));
    let mut out = Vec::new();
    line::write(&prefix, &sent, &event::parse::<()>(&sent).unwrap(), &mut out);
    out
}

const fn logged(event: u128, time: i64) -> Logged {
    Logged { event, time }
}

/// Events A and B, then a repeat of A that is young enough to be recognized, then event C, and 70 minutes later another
/// repeat of A.
const LOG: [Logged; 5] =
    [logged(0, 0), logged(1, MINUTE), logged(0, 5 * MINUTE), logged(2, 5 * MINUTE), logged(0, 75 * MINUTE)];

#[test]
fn a_batch_that_is_rebuilt_after_70_minutes_is_equal_in_every_cell() {
    let mut first = Owner::new(&LOG, LIMITS);
    let before = first.makes_batch_up_to(1);
    let declared = first.makes_batch_up_to(3);
    assert_eq!(declared.stored(), [0, 1], "the repeat is recognized");
    // Suppose that the first owner dies after it has inserted only some of the cells. The second owner rebuilds the
    // batch.
    let mut second = Owner::restored(&LOG, LIMITS, &before.entries, declared.before, declared.batcher());
    assert!(!second.finds_queue_empty(75 * MINUTE), "the declared batch has not been fetched yet");
    let again = second.makes_batch_up_to(3);
    assert_eq!(again.cells, declared.cells);
    assert_eq!(again.entries, declared.entries);
    // The next repeat of A comes 75 minutes after A. The window covers 10 minutes, so the second owner counts A again,
    // as the first owner would have done if it had not died.
    let (next, next_again) = (first.makes_batch_up_to(4), second.makes_batch_up_to(4));
    assert_eq!((next.stored(), next_again.stored()), (vec![1], vec![1]));
    assert_eq!(next_again.cells, next.cells);
    assert_eq!(next_again.before, next.before);
}

#[test]
fn a_backlog_whose_first_fetch_takes_long_after_a_stop_is_not_counted_twice() {
    let mut first = Owner::new(&LOG, LIMITS);
    let applied = first.makes_batch_up_to(1);
    let next = batcher(NextOffset::new(2));
    let mut second = Owner::restored(&LOG, LIMITS, &applied.entries, first.before, next);
    assert!(!second.finds_queue_empty(3 * HOUR), "the log has unread records, so the partition is not idle");
    assert_eq!(second.makes_batch_up_to(3).stored(), [0, 1], "the repeat is recognized");
}

#[test]
fn an_emptied_window_recognizes_the_same_repeats_as_a_kept_window() {
    const LOG: [Logged; 3] = [logged(0, 0), logged(1, 5 * MINUTE), logged(0, 76 * MINUTE)];
    let (mut kept, mut emptied) = (Owner::new(&LOG, LIMITS), Owner::new(&LOG, LIMITS));
    kept.makes_batch_up_to(1);
    emptied.makes_batch_up_to(1);
    assert!(!emptied.finds_queue_empty(75 * MINUTE - 1), "the newest record is less than 70 minutes old");
    assert!(emptied.finds_queue_empty(75 * MINUTE), "70 minutes: the window's maximum age plus an hour");
    let (by_kept, by_emptied) = (kept.makes_batch_up_to(2), emptied.makes_batch_up_to(2));
    assert_eq!(by_kept.stored(), [1]);
    assert_eq!(by_emptied.cells, by_kept.cells);
    assert_eq!(by_emptied.before, Window::new().mark(NextOffset::new(2)));
}

/// The events A, B, C, A, D, A, which Kafka appends one minute apart. The broker's clock is wrong by `jump`
/// milliseconds for C and the first repeat of A, and right for the other events.
const fn with_jump(jump: i64) -> [Logged; 6] {
    [
        logged(0, 0),
        logged(1, MINUTE),
        logged(2, 2 * MINUTE + jump),
        logged(0, 3 * MINUTE + jump),
        logged(3, 4 * MINUTE),
        logged(0, 5 * MINUTE),
    ]
}

#[test]
fn a_jump_of_a_brokers_clock_and_back_loses_no_event_and_only_shortens_the_window() {
    for jump in [DAY, 14 * DAY, -DAY, -14 * DAY] {
        let log = with_jump(jump);
        let mut owner = Owner::new(&log, WindowLimits { age_ms: DAY, ..LIMITS });
        // If the clock jumps ahead, A looks too old for the window, so the window forgets A, and the first repeat is
        // counted. The second repeat is recognized after every jump.
        let repeat = u32::from(jump > 0);
        assert_eq!(owner.makes_batch_up_to(5).stored(), [1, 1, 1, repeat, 1, 0], "clock jump of {jump} ms");
    }
}

#[test]
fn a_rebuilt_batch_is_equal_however_a_brokers_clock_jumps() {
    for jump in [DAY, 14 * DAY, -DAY, -14 * DAY] {
        let (log, limits) = (with_jump(jump), WindowLimits { age_ms: DAY, ..LIMITS });
        for end in 0..5 {
            let mut first = Owner::new(&log, limits);
            let before = first.makes_batch_up_to(end);
            let declared = first.makes_batch_up_to(5);
            let mut second =
                Owner::restored(&log, limits, &before.entries, declared.before, declared.batcher());
            let again = second.makes_batch_up_to(5);
            assert_eq!(again.cells, declared.cells, "clock jump of {jump} ms, first batch up to {end}");
        }
    }
}

#[test]
fn a_wrong_clock_of_the_process_at_most_shortens_the_window() {
    const LOG: [Logged; 4] = [logged(0, 0), logged(1, MINUTE), logged(0, 2 * MINUTE), logged(0, 3 * MINUTE)];
    let mut back = Owner::new(&LOG[..], LIMITS);
    back.makes_batch_up_to(1);
    assert!(!back.finds_queue_empty(MINUTE - DAY));
    assert_eq!(back.makes_batch_up_to(3).stored(), [0, 0], "both repeats are recognized");

    let mut ahead = Owner::new(&LOG[..2], LIMITS);
    ahead.makes_batch_up_to(1);
    assert!(ahead.finds_queue_empty(MINUTE + DAY), "all records are read and seem to be a day old");
    ahead.log = &LOG;
    assert_eq!(ahead.makes_batch_up_to(3).stored(), [1, 0], "the window was emptied, so A is counted again");
}

/// One step of a property test: an owner makes a batch of the next `records` records.
#[derive(Debug, Clone)]
struct Turn {
    records: i64,
    /// Whether the owner dies after it has declared the batch. If so, the next owner rebuilds the batch.
    dies: bool,
    /// When the owner finds its queue empty before each record, in milliseconds after the previous record.
    empty_queue_times: Vec<i64>,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let empty_queue_times = prop::collection::vec(prop_oneof![0..15 * MINUTE, 0..4 * HOUR], 0..3);
    let turn = (1..5_i64, any::<bool>(), empty_queue_times);
    let turn = turn.prop_map(|(records, dies, empty_queue_times)| Turn { records, dies, empty_queue_times });
    prop::collection::vec(turn, 1..12)
}

fn log() -> impl Strategy<Value = Vec<Logged>> {
    let wait = prop_oneof![Just(0), 0..12 * MINUTE, 0..3 * HOUR];
    let records = prop::collection::vec((0..4_u128, wait), 60);
    records.prop_map(|records| {
        let mut time = 0;
        let logged = |(event, wait)| {
            time += wait;
            Logged { event, time }
        };
        records.into_iter().map(logged).collect()
    })
}

/// Records with one event each, all events different. The broker's clock may jump before each record.
fn jumping_log() -> impl Strategy<Value = Vec<Logged>> {
    let jump = prop_oneof![4 => Just(0), 1 => prop::sample::select(vec![DAY, -DAY, 14 * DAY, -14 * DAY])];
    prop::collection::vec((0..MINUTE, jump), 20).prop_map(|waits| {
        let mut time = 30 * DAY;
        let logged = |(event, (wait, jump))| {
            time += wait + jump;
            Logged { event, time }
        };
        (0..).zip(waits).map(logged).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However often owners die or find their queues empty, each batch has the same cells as the batch that an owner
    /// makes from the same records if it never dies and never finds its queue empty.
    #[test]
    fn a_batch_depends_only_on_its_records_and_the_records_before_them(
        log in log(), turns in turns(), max_ids in 1..20_usize,
    ) {
        let limits = WindowLimits { max_ids, ..LIMITS };
        let (mut steady, mut owner) = (Owner::new(&log, limits), Owner::new(&log, limits));
        let mut ledger = Vec::new();
        for Turn { records, dies, empty_queue_times } in turns {
            let last = steady.read.to_i64() + records - 1;
            let expected = steady.makes_batch_up_to(last);
            let mut made = owner.makes_batch_slowly(last, &empty_queue_times);
            prop_assert_eq!(&made.cells, &expected.cells);
            if dies {
                owner = Owner::restored(&log, limits, &ledger, made.before, made.batcher());
                made = owner.makes_batch_slowly(last, &empty_queue_times);
                prop_assert_eq!(&made.cells, &expected.cells);
            }
            ledger.extend(made.entries);
        }
    }

    /// However a broker's clock jumps, an event that was sent once is counted once, even if its batch is rebuilt.
    #[test]
    fn no_jump_of_a_brokers_clock_loses_or_doubles_an_event(
        log in jumping_log(), ends in prop::collection::btree_set(0..20_i64, 1..6),
    ) {
        let limits = WindowLimits { age_ms: DAY, ..LIMITS };
        let mut owner = Owner::new(&log, limits);
        let mut ledger = Vec::new();
        for end in ends {
            let declared = owner.makes_batch_up_to(end);
            prop_assert!(declared.stored().iter().all(|stored| *stored == 1));
            owner = Owner::restored(&log, limits, &ledger, declared.before, declared.batcher());
            let made = owner.makes_batch_up_to(end);
            prop_assert_eq!(&made.cells, &declared.cells);
            ledger.extend(made.entries);
        }
    }
}
