use proptest::prelude::*;

use super::*;

fn deliver(offset: i64) -> Event {
    Event::Delivered(Offset::new(offset))
}

fn next_offset(offset: i64) -> Option<NextOffset> {
    Some(NextOffset::new(offset))
}

#[track_caller]
fn check(events: &[Event], committable: Option<NextOffset>) {
    let mut progress = Progress::new(NextOffset::new(3));
    for event in events {
        progress.on(*event);
    }
    assert_eq!(progress.committable(), committable);
}

#[test]
fn nothing_is_committed_before_every_cell_has_the_batch() {
    let closed = Event::Closed { cells: 2 };
    check(&[deliver(3), closed], None);
    check(&[deliver(3), closed, Event::CellApplied], None);
    check(&[deliver(3), closed, Event::CellApplied, Event::CellApplied], next_offset(4));
}

#[test]
fn a_gap_in_offsets_does_not_hold_back_the_commit() {
    check(&[deliver(3), deliver(7), Event::Closed { cells: 1 }, Event::CellApplied], next_offset(8));
}

#[test]
fn what_was_delivered_after_a_batch_closed_waits_for_its_own() {
    check(&[deliver(3), Event::Closed { cells: 1 }, deliver(4), Event::CellApplied], next_offset(4));
}

#[test]
fn what_is_committed_is_not_committed_again() {
    let committed = Event::Committed(NextOffset::new(4));
    check(&[deliver(3), Event::Closed { cells: 1 }, Event::CellApplied, committed], None);
}

#[test]
fn a_revoked_partition_commits_nothing() {
    check(&[deliver(3), Event::Closed { cells: 1 }, Event::CellApplied, Event::Revoked], None);
}

#[test]
#[should_panic(expected = "delivered after")]
fn a_record_twice_is_a_fault() {
    check(&[deliver(3), deliver(3)], None);
}

#[test]
#[should_panic(expected = "committed, not applied")]
fn a_commit_ahead_of_the_cells_is_a_fault() {
    check(&[deliver(3), Event::Committed(NextOffset::new(4))], None);
}

/// What a pipeline may do next, by number; steps that are not possible now do nothing.
fn step(choice: u8, gap: i64, model: &mut Model, progress: &mut Progress) {
    match choice {
        0 => {
            let offset = model.next + gap;
            model.next = offset + 1;
            model.open.push(offset);
            progress.on(deliver(offset));
        }
        1 if !model.open.is_empty() => {
            let cells = 1 + gap as usize;
            model.closed.push_back((std::mem::take(&mut model.open), cells));
            progress.on(Event::Closed { cells });
        }
        2 => {
            if let Some((_, cells)) = model.closed.front_mut() {
                *cells -= 1;
                if *cells == 0 {
                    model.closed.pop_front();
                }
                progress.on(Event::CellApplied);
            }
        }
        3 => {
            if let Some(next) = progress.committable() {
                progress.on(Event::Committed(next));
                model.committed = next.to_i64();
            }
        }
        _ => {}
    }
}

/// The records, told apart by where they are.
#[derive(Default)]
struct Model {
    next: i64,
    open: Vec<i64>,
    closed: VecDeque<(Vec<i64>, usize)>,
    committed: i64,
}

proptest! {
    /// Whatever the order of events, nothing that is missing from a cell lies below the commit.
    #[test]
    fn everything_delivered_below_the_commit_is_in_every_cell(
        steps in prop::collection::vec((0..4_u8, 0..3_i64), 0..200),
    ) {
        let mut model = Model::default();
        let mut progress = Progress::new(NextOffset::new(0));
        for (choice, gap) in steps {
            step(choice, gap, &mut model, &mut progress);
            let missing = model.closed.iter().flat_map(|(records, _)| records).chain(&model.open);
            prop_assert!(missing.min().is_none_or(|first| *first >= model.committed));
            prop_assert!(progress.applied().to_i64() >= model.committed);
        }
    }
}
