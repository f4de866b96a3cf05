use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn chunk(value: String) -> Chunk {
    Chunk { partition: 0, lines: value.matches('\n').count() as u32, value: value.into_bytes() }
}

/// Lines of one request, all of them `name`, of `length` bytes each.
fn lines(name: char, count: usize, length: usize) -> Chunk {
    chunk(format!("{}\n", name.to_string().repeat(length - 1)).repeat(count))
}

/// A lane and what it has sent.
#[derive(Default)]
struct Bench {
    lane: Lane,
    under_way: VecDeque<Receipt>,
    sent: Vec<(u32, String)>,
    kafka_takes: bool,
    appointed: bool,
}

impl Bench {
    fn new() -> Self {
        Self { kafka_takes: true, ..Self::default() }
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Lane, &mut dyn FnMut(&Record) -> bool) -> T) -> T {
        let Self { lane, under_way, sent, kafka_takes, .. } = self;
        let result = act(lane, &mut |record| {
            assert!(record.bytes() <= MAX_BYTES);
            assert_eq!(record.value().split(|b| *b == b'\n').count(), record.lines as usize);
            if *kafka_takes {
                sent.push((record.lines, String::from_utf8(record.value().to_vec()).unwrap()));
                under_way.push_back(Arc::clone(&record.receipt));
            } else {
                record.receipt.set(Err(Refusal::NotDurable)).unwrap();
            }
            *kafka_takes
        });
        let waits = lane.open.lines > 0;
        let will_be_sent = lane.appointed || lane.in_flight >= MAX_IN_FLIGHT;
        assert!(!waits || will_be_sent, "lines wait and nothing will wake them");
        result
    }

    /// A request, while others are ready.
    fn append(&mut self, chunk: &Chunk) -> Vec<Receipt> {
        let appended = self.act(|lane, send| lane.append(chunk, Ack::Durable, None, send));
        assert!(!(self.appointed && appended.appointed), "one sender is enough");
        self.appointed |= appended.appointed;
        appended.receipts
    }

    /// Whoever was appointed sends.
    fn send_open(&mut self) {
        if mem::take(&mut self.appointed) {
            self.act(|lane, send| lane.send_open(send));
        }
    }

    /// A request, while no other one is ready.
    fn append_alone(&mut self, chunk: &Chunk) -> Vec<Receipt> {
        let receipts = self.append(chunk);
        self.send_open();
        receipts
    }

    /// The oldest record under way is acknowledged.
    fn acknowledge(&mut self) {
        if let Some(receipt) = self.under_way.pop_front() {
            receipt.set(Ok(())).unwrap();
            self.act(|lane, send| lane.ended(send));
        }
    }

    #[track_caller]
    fn check_sent(&self, expected: &[&str]) {
        assert_eq!(self.sent.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_lone_request_is_sent_at_once_and_later_ones_gather() {
    let mut bench = Bench::new();
    for name in ['a', 'b', 'c', 'd'] {
        bench.append_alone(&lines(name, 2, 2));
    }
    bench.check_sent(&["a\na", "b\nb"]);
    bench.acknowledge();
    bench.check_sent(&["a\na", "b\nb", "c\nc\nd\nd"]);
    bench.acknowledge();
    bench.acknowledge();
    assert_eq!(bench.sent.len(), 3);
}

#[test]
fn requests_that_are_ready_together_go_together() {
    let mut bench = Bench::new();
    for name in ['a', 'b', 'c'] {
        bench.append(&lines(name, 1, 2));
    }
    bench.check_sent(&[]);
    bench.send_open();
    bench.check_sent(&["a\nb\nc"]);
    bench.append(&lines('d', 1, 2));
    bench.acknowledge();
    bench.check_sent(&["a\nb\nc"]);
    bench.send_open();
    bench.check_sent(&["a\nb\nc", "d"]);
}

#[test]
fn a_full_record_does_not_wait() {
    let mut bench = Bench::new();
    for name in ['a', 'b', 'c'] {
        bench.append_alone(&lines(name, 1, 10));
    }
    bench.append_alone(&lines('d', 1, TARGET_BYTES - 10));
    assert_eq!(bench.sent.iter().map(|(lines, _)| *lines).collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn a_request_longer_than_a_record_is_cut_at_line_ends_and_waits_for_all_parts() {
    let mut bench = Bench::new();
    let receipts = bench.append_alone(&lines('a', 13, 50_000));
    assert_eq!(bench.sent.iter().map(|(lines, _)| *lines).collect::<Vec<_>>(), [10, 3]);
    assert_eq!(receipts.len(), 2);
    bench.acknowledge();
    assert!(receipts[0].get().is_some() && receipts[1].get().is_none());
}

#[test]
fn what_kafkas_client_refuses_fails_and_holds_up_nothing() {
    let mut bench = Bench::new();
    for name in ['a', 'b', 'c'] {
        bench.append_alone(&lines(name, 1, 2));
    }
    bench.kafka_takes = false;
    bench.acknowledge();
    let refused = bench.append_alone(&lines('d', 1, 2));
    assert_eq!(refused[0].get(), Some(&Err(Refusal::NotDurable)));
    bench.kafka_takes = true;
    bench.acknowledge();
    bench.append_alone(&lines('e', 1, 2));
    bench.check_sent(&["a", "b", "e"]);
}

#[test]
fn at_the_end_nothing_stays_behind() {
    let mut bench = Bench::new();
    for name in ['a', 'b', 'c'] {
        bench.append_alone(&lines(name, 1, 2));
    }
    bench.act(|lane, send| lane.finish(send));
    bench.check_sent(&["a", "b", "c"]);
}

#[test]
fn a_record_knows_how_many_of_its_lines_are_answered_already() {
    let mut lane = Lane::default();
    let not_yet = |_: &Record| unreachable!("nobody is appointed, or two are under way");
    for _ in 0..MAX_IN_FLIGHT {
        assert!(lane.append(&lines('a', 1, 2), Ack::Accepted, None, not_yet).appointed);
        lane.send_open(|record| {
            assert_eq!((record.lines, record.answered), (1, 1));
            true
        });
    }
    assert!(!lane.append(&lines('b', 2, 2), Ack::Durable, None, not_yet).appointed);
    assert!(!lane.append(&lines('c', 3, 2), Ack::Accepted, None, not_yet).appointed);
    lane.ended(|record| {
        assert_eq!((record.lines, record.answered), (5, 3));
        true
    });
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many lines of so many bytes.
    Append(usize, usize),
    Send,
    Acknowledge,
}

proptest! {
    /// Whatever comes in whatever order: each line goes once, in order, and its request learns of it.
    #[test]
    fn every_line_goes_once_and_is_told(
        steps in proptest::collection::vec(prop_oneof![
            (1_usize..4, 2_usize..60_000).prop_map(|(count, length)| Step::Append(count, length)),
            (20_usize..40, 2_usize..60_000).prop_map(|(count, length)| Step::Append(count, length)),
            Just(Step::Send),
            Just(Step::Acknowledge),
        ], 1..40)
    ) {
        let mut bench = Bench::new();
        let (mut expected, mut receipts) = (String::new(), Vec::new());
        for (step, name) in steps.into_iter().zip(('a'..='z').cycle()) {
            match step {
                Step::Append(count, length) => {
                    let chunk = lines(name, count, length);
                    expected.push_str(str::from_utf8(&chunk.value).unwrap());
                    receipts.append(&mut bench.append(&chunk));
                }
                Step::Send => bench.send_open(),
                Step::Acknowledge => bench.acknowledge(),
            }
        }
        bench.send_open();
        while !bench.under_way.is_empty() {
            bench.acknowledge();
        }
        let sent: String = bench.sent.iter().map(|(_, value)| format!("{value}\n")).collect();
        prop_assert!(sent == expected);
        prop_assert!(receipts.iter().all(|receipt| receipt.get() == Some(&Ok(()))));
    }
}
