use super::*;
use crate::protocol::window::WindowMark;

const CFG: u64 = 7;
const TOPIC: Option<TopicId> = Some(TopicId(9));
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// Every record below 10 is committed. A batch up to `last` is declared if `last` is given.
fn intent(last: Option<i64>) -> Intent {
    Intent {
        last: last.map(Offset::new),
        start: NextOffset::new(4),
        window: WindowMark { floor: NextOffset::new(6), digest: Digest::default() },
        newest: Some(NOW),
        ..Intent::fresh(NextOffset::new(10), CFG, 2, LogMark { topic: TOPIC, epoch: Some(3) })
    }
}

fn found(metadata: &str) -> KafkaState {
    let committed = Some((NextOffset::new(10), metadata.to_owned()));
    KafkaState { committed, low: NextOffset::new(3), end: NextOffset::new(20), topic: TOPIC }
}

fn marker(table: &str, applied_end: i64) -> Marker {
    Marker {
        table: table.to_owned(),
        partition_id: "202611".to_owned(),
        applied_end: NextOffset::new(applied_end),
    }
}

#[track_caller]
fn check(found: &KafkaState, markers: &[Marker], expected: Result<(i64, Option<i64>), &str>) {
    match (resume(found, markers, NOW, CFG), expected) {
        (Ok(resume), Ok((from, rebuild))) => {
            assert_eq!((resume.from, resume.rebuild), (NextOffset::new(from), rebuild.map(Offset::new)));
        }
        (Err(finding), Err(text)) => assert!(finding.to_string().contains(text), "{finding}"),
        (result, _) => panic!("{result:?}"),
    }
}

#[test]
fn without_commit_and_markers_a_partition_starts_at_the_beginning_of_its_log() {
    check(&KafkaState { committed: None, ..found("") }, &[], Ok((3, None)));
    check(&found(""), &[], Ok((10, None)));
}

#[test]
fn a_declared_batch_is_rebuilt_no_matter_which_of_its_cells_are_in_clickhouse() {
    let declared = found(&intent(Some(14)).to_string());
    for ledger in [10, 15] {
        check(&declared, &[marker("ledger", ledger), marker("events", 8)], Ok((10, Some(14))));
        check(&declared, &[marker("ledger", ledger), marker("events", 15)], Ok((10, Some(14))));
    }
    check(&found(&intent(None).to_string()), &[marker("ledger", 10)], Ok((10, None)));
}

#[test]
fn a_missing_commit_or_intent_is_refused_if_tables_hold_rows() {
    let none = KafkaState { committed: None, ..found("") };
    check(&none, &[marker("events", 9)], Err("no offset is committed, but `events` holds records below 9"));
    check(&found(""), &[marker("events", 10)], Err("offset 10 is committed without an intent"));
    check(&found("a tool's"), &[], Err("not an intent"));
    let later = intent(None).to_string().replacen("v2", "v3", 1);
    check(&found(&later), &[marker("ledger", 10)], Err("run the later release"));
}

#[test]
fn a_marker_that_matches_no_committed_declared_or_adopted_end_is_refused() {
    let (idle, declared) = (found(&intent(None).to_string()), found(&intent(Some(14)).to_string()));
    let ledger = marker("ledger", 10);
    check(
        &idle,
        &[ledger.clone(), marker("event_daily", 15)],
        Err("table partition 202611 of `event_daily` holds"),
    );
    check(&declared, &[ledger.clone(), marker("event_daily", 13)], Err("below 13"));
    check(&declared, &[ledger.clone(), marker("event_daily", 16)], Err("below 16"));
    let adopted = Intent { adopted: Some(NextOffset::new(15)), ..intent(None) };
    check(&found(&adopted.to_string()), &[ledger, marker("event_daily", 15)], Ok((10, None)));
}

#[test]
fn a_log_that_is_shorter_or_begins_later_than_the_commit_is_refused() {
    let declared = found(&intent(Some(14)).to_string());
    let ledger = [marker("ledger", 10)];
    let shorter = KafkaState { end: NextOffset::new(14), ..declared.clone() };
    check(&shorter, &ledger, Err("records below 15 were read from the log, which was then truncated"));
    check(&KafkaState { topic: None, ..shorter }, &ledger, Err("the log ends at 14"));
    check(&KafkaState { end: NextOffset::new(15), ..declared.clone() }, &ledger, Ok((10, Some(14))));
    check(&KafkaState { low: NextOffset::new(11), ..declared }, &ledger, Err("the log begins at 11"));
}

#[test]
fn a_ledger_without_the_last_batch_is_refused_until_the_batch_may_expire() {
    let idle = found(&intent(None).to_string());
    check(&idle, &[marker("ledger", 9)], Err("restored from an older backup"));
    check(&idle, &[], Err("the ledger holds only those below 0"));
    let first = Intent { start: NextOffset::new(10), ..intent(None) };
    check(&found(&first.to_string()), &[], Ok((10, None)));
    let old = Intent { newest: Some(UnixMillis(NOW.0 - 32 * DAY)), ..intent(None) };
    check(&found(&old.to_string()), &[], Ok((10, None)));
    let newer = Intent { newest: Some(UnixMillis(NOW.0 - 30 * DAY)), ..intent(None) };
    check(&found(&newer.to_string()), &[], Err("older backup"));
}

#[test]
fn a_topic_that_was_created_again_is_refused_even_if_its_log_is_longer() {
    let declared = found(&intent(Some(14)).to_string());
    let ledger = [marker("ledger", 10)];
    let recreated = KafkaState { topic: Some(TopicId(10)), end: NextOffset::new(1000), ..declared.clone() };
    check(&recreated, &ledger, Err("the topic was deleted and created again"));
    let help = resume(&recreated, &ledger, NOW, CFG).unwrap_err().help(7);
    assert!(help.contains("--new-log"), "{help}");
    // A new topic is not detected if the brokers do not support topic ids, or if the previous release, which does not
    // store the id, wrote the intent.
    check(&KafkaState { topic: None, ..declared.clone() }, &ledger, Ok((10, Some(14))));
    let before = Intent { log: LogMark::default(), ..intent(Some(14)) };
    check(&found(&before.to_string()), &ledger, Ok((10, Some(14))));
}

#[test]
fn an_intent_without_a_topic_id_gets_the_id_of_the_current_topic() {
    let before = Intent { log: LogMark::default(), ..intent(None) };
    let resumed = resume(&found(&before.to_string()), &[marker("ledger", 10)], NOW, CFG).unwrap();
    assert_eq!(resumed.intent.log.topic, TOPIC);
    let fresh = resume(&KafkaState { committed: None, ..found("") }, &[], NOW, CFG).unwrap();
    assert_eq!(fresh.intent.log.topic, TOPIC);
}

#[test]
fn inside_a_declared_batch_markers_are_valid_only_at_its_split_points() {
    let split = Intent { split: vec![NextOffset::new(12), NextOffset::new(13)], ..intent(Some(14)) };
    let split = found(&split.to_string());
    for applied_end in [10, 12, 13, 15] {
        check(
            &split,
            &[marker("ledger", applied_end.max(10)), marker("events", applied_end)],
            Ok((10, Some(14))),
        );
    }
    check(&split, &[marker("ledger", 10), marker("events", 11)], Err("below 11"));
    check(&split, &[marker("ledger", 10), marker("events", 14)], Err("below 14"));
}
