use super::*;

fn progress() -> Progress {
    Progress::new(NextOffset::new(3))
}

#[test]
fn a_batch_counts_as_applied_when_every_cell_has_it() {
    let mut progress = progress();
    progress.declare(Offset::new(7), 2);
    assert!(!progress.may_declare());
    progress.cell_applied();
    assert_eq!((progress.applied(), progress.may_declare()), (NextOffset::new(3), false));
    progress.cell_applied();
    assert_eq!((progress.applied(), progress.may_declare()), (NextOffset::new(8), true));
}

#[test]
#[should_panic(expected = "while another one is unfinished")]
fn no_batch_is_declared_before_the_previous_batch_is_applied() {
    let mut progress = progress();
    progress.declare(Offset::new(3), 2);
    progress.cell_applied();
    progress.declare(Offset::new(4), 1);
}

#[test]
#[should_panic(expected = "a batch holds a record")]
fn declaring_a_batch_below_the_applied_offset_panics() {
    progress().declare(Offset::new(2), 1);
}

#[test]
fn only_a_refused_commit_is_retried_without_rejoining_the_group() {
    assert_eq!(after_commit(CommitOutcome::Refused), AfterCommit::ReadBack);
    assert_eq!(after_commit(CommitOutcome::Removed), AfterCommit::Rejoin);
    assert_eq!(after_commit(CommitOutcome::Denied), AfterCommit::Rejoin);
    assert_eq!(after_commit(CommitOutcome::Unknown), AfterCommit::Rejoin);
    assert_eq!(after_commit(CommitOutcome::Fenced), AfterCommit::Shutdown);
}

#[test]
fn a_partition_is_not_released_while_a_commit_is_under_way() {
    assert!(may_release(true, false));
    assert!(!may_release(true, true) && !may_release(false, false));
}
