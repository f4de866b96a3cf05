use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn chunk(value: String) -> Chunk {
    Chunk { partition: 0, lines: value.matches('\n').count() as u32, value: value.into_bytes() }
}

/// `count` lines of one request. Each has `length` bytes: `name`, repeated, and `\n`.
fn lines(name: char, count: usize, length: usize) -> Chunk {
    chunk(format!("{}\n", name.to_string().repeat(length - 1)).repeat(count))
}

/// An accumulator and what it has sent.
#[derive(Default)]
struct Harness {
    accumulator: RecordAccumulator,
    in_flight: VecDeque<Receipt>,
    sent: Vec<(u32, String)>,
    client_accepts: bool,
    must_send: bool,
}

impl Harness {
    fn new() -> Self {
        Self { client_accepts: true, ..Self::default() }
    }

    fn act<T>(
        &mut self,
        act: impl FnOnce(&mut RecordAccumulator, &mut dyn FnMut(&Record) -> bool) -> T,
    ) -> T {
        let Self { accumulator, in_flight, sent, client_accepts, .. } = self;
        let result = act(accumulator, &mut |record| {
            assert!(record.bytes() <= MAX_BYTES);
            assert_eq!(record.value().split(|b| *b == b'\n').count(), record.lines as usize);
            if *client_accepts {
                sent.push((record.lines, String::from_utf8(record.value().to_vec()).unwrap()));
                in_flight.push_back(Arc::clone(&record.receipt));
            } else {
                record.receipt.set(Err(Refusal::NotDurable)).unwrap();
            }
            *client_accepts
        });
        let waits = accumulator.open.lines > 0;
        let will_be_sent = accumulator.send_pending || accumulator.in_flight >= MAX_IN_FLIGHT;
        assert!(!waits || will_be_sent, "lines wait, and nothing will send them");
        result
    }

    /// Appends the lines of a request, but does not send the open record yet, as if other requests were ready.
    fn append(&mut self, chunk: &Chunk) -> Vec<Receipt> {
        let appended = self.act(|accumulator, send| accumulator.append(chunk, Ack::Durable, None, send));
        assert!(!(self.must_send && appended.must_send), "two requests were told to send the same record");
        self.must_send |= appended.must_send;
        appended.receipts
    }

    /// Sends the open record if a request must send it.
    fn send_open(&mut self) {
        if mem::take(&mut self.must_send) {
            self.act(|accumulator, send| accumulator.send_open(send));
        }
    }

    /// Appends the lines of a request while no other request is ready.
    fn append_alone(&mut self, chunk: &Chunk) -> Vec<Receipt> {
        let receipts = self.append(chunk);
        self.send_open();
        receipts
    }

    /// Acknowledges the oldest record in flight.
    fn acknowledge(&mut self) {
        if let Some(receipt) = self.in_flight.pop_front() {
            receipt.set(Ok(())).unwrap();
            self.act(|accumulator, send| accumulator.record_ended(send));
        }
    }

    #[track_caller]
    fn check_sent(&self, expected: &[&str]) {
        assert_eq!(self.sent.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn while_two_records_are_in_flight_later_requests_share_a_record() {
    let mut harness = Harness::new();
    for name in ['a', 'b', 'c', 'd'] {
        harness.append_alone(&lines(name, 2, 2));
    }
    harness.check_sent(&["a\na", "b\nb"]);
    harness.acknowledge();
    harness.check_sent(&["a\na", "b\nb", "c\nc\nd\nd"]);
    harness.acknowledge();
    harness.acknowledge();
    assert_eq!(harness.sent.len(), 3);
}

#[test]
fn requests_that_are_ready_together_share_a_record() {
    let mut harness = Harness::new();
    for name in ['a', 'b', 'c'] {
        harness.append(&lines(name, 1, 2));
    }
    harness.check_sent(&[]);
    harness.send_open();
    harness.check_sent(&["a\nb\nc"]);
    harness.append(&lines('d', 1, 2));
    harness.acknowledge();
    harness.check_sent(&["a\nb\nc"]);
    harness.send_open();
    harness.check_sent(&["a\nb\nc", "d"]);
}

#[test]
fn a_full_record_is_sent_even_if_two_are_in_flight() {
    let mut harness = Harness::new();
    for name in ['a', 'b', 'c'] {
        harness.append_alone(&lines(name, 1, 10));
    }
    harness.append_alone(&lines('d', 1, TARGET_BYTES - 10));
    assert_eq!(harness.sent.iter().map(|(lines, _)| *lines).collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn a_request_longer_than_a_record_is_split_at_line_ends_and_has_a_receipt_per_part() {
    let mut harness = Harness::new();
    let receipts = harness.append_alone(&lines('a', 13, 50_000));
    assert_eq!(harness.sent.iter().map(|(lines, _)| *lines).collect::<Vec<_>>(), [10, 3]);
    assert_eq!(receipts.len(), 2);
    harness.acknowledge();
    assert!(receipts[0].get().is_some() && receipts[1].get().is_none());
}

#[test]
fn a_record_that_kafkas_client_refuses_fails_and_does_not_block_others() {
    let mut harness = Harness::new();
    for name in ['a', 'b', 'c'] {
        harness.append_alone(&lines(name, 1, 2));
    }
    harness.client_accepts = false;
    harness.acknowledge();
    let refused = harness.append_alone(&lines('d', 1, 2));
    assert_eq!(refused[0].get(), Some(&Err(Refusal::NotDurable)));
    harness.client_accepts = true;
    harness.acknowledge();
    harness.append_alone(&lines('e', 1, 2));
    harness.check_sent(&["a", "b", "e"]);
}

#[test]
fn closing_sends_the_open_record() {
    let mut harness = Harness::new();
    for name in ['a', 'b', 'c'] {
        harness.append_alone(&lines(name, 1, 2));
    }
    harness.act(|accumulator, send| accumulator.close(send));
    harness.check_sent(&["a", "b", "c"]);
}

#[test]
fn a_record_counts_its_lines_whose_requests_are_already_answered() {
    let mut accumulator = RecordAccumulator::default();
    let not_yet = |_: &Record| unreachable!("`append` itself sends only full records");
    for _ in 0..MAX_IN_FLIGHT {
        assert!(accumulator.append(&lines('a', 1, 2), Ack::Accepted, None, not_yet).must_send);
        accumulator.send_open(|record| {
            assert_eq!((record.lines, record.answered), (1, 1));
            true
        });
    }
    assert!(!accumulator.append(&lines('b', 2, 2), Ack::Durable, None, not_yet).must_send);
    assert!(!accumulator.append(&lines('c', 3, 2), Ack::Accepted, None, not_yet).must_send);
    accumulator.record_ended(|record| {
        assert_eq!((record.lines, record.answered), (5, 3));
        true
    });
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Append this many lines, each with this many bytes.
    Append(usize, usize),
    Send,
    Acknowledge,
}

proptest! {
    /// In any order of steps, each line is sent once, the lines keep their order, and each receipt gets the result of
    /// its record.
    #[test]
    fn every_line_is_sent_once_and_its_request_gets_the_result(
        steps in proptest::collection::vec(prop_oneof![
            (1_usize..4, 2_usize..60_000).prop_map(|(count, length)| Step::Append(count, length)),
            (20_usize..40, 2_usize..60_000).prop_map(|(count, length)| Step::Append(count, length)),
            Just(Step::Send),
            Just(Step::Acknowledge),
        ], 1..40)
    ) {
        let mut harness = Harness::new();
        let (mut expected, mut receipts) = (String::new(), Vec::new());
        for (step, name) in steps.into_iter().zip(('a'..='z').cycle()) {
            match step {
                Step::Append(count, length) => {
                    let chunk = lines(name, count, length);
                    expected.push_str(str::from_utf8(&chunk.value).unwrap());
                    receipts.append(&mut harness.append(&chunk));
                }
                Step::Send => harness.send_open(),
                Step::Acknowledge => harness.acknowledge(),
            }
        }
        harness.send_open();
        while !harness.in_flight.is_empty() {
            harness.acknowledge();
        }
        let sent: String = harness.sent.iter().map(|(_, value)| format!("{value}\n")).collect();
        prop_assert!(sent == expected);
        prop_assert!(receipts.iter().all(|receipt| receipt.get() == Some(&Ok(()))));
    }
}
