//! Compares what an operator says about a log with the state of the log in Kafka. Pure.

use super::AdoptError;
use crate::protocol::progress::NextOffset;
use crate::protocol::recover::KafkaState;

/// What an operator says about the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// The tables were filled from this log. Since then, the log was not truncated and its topic was not created again.
    Same,
    /// The topic was deleted and created again, or the log was truncated. The log is read from offset `from` on. If
    /// the topic was created again, `from` may be omitted; the log is then read from its beginning.
    New {
        /// The first offset that the tables do not hold.
        from: Option<NextOffset>,
    },
}

/// Checks what the operator says about the log against what was `found` in Kafka. For [`Log::Same`], returns the offset
/// after the newest record whose leader epoch is known, and this epoch: the log must still hold this record. Returns
/// `None` for [`Log::New`], if no epoch is known, or if the log begins above this offset, because retention has then
/// deleted the record.
pub(super) fn check_log(
    partition: u16,
    log: Log,
    found: &KafkaState,
) -> Result<Option<(NextOffset, i32)>, AdoptError> {
    let committed = found.intent();
    let same_topic = committed.as_ref().is_some_and(|(_, intent)| found.is_of(intent));
    let topics = (committed.as_ref().and_then(|(_, intent)| intent.log.topic), found.topic);
    let reached = committed.as_ref().map(|(from, intent)| intent.reached(*from));
    match (log, reached) {
        (Log::New { from: None }, _) if same_topic => Err(AdoptError::SameTopic { partition }),
        (Log::New { from: Some(from) }, Some(reached)) if same_topic && from > reached => {
            Err(AdoptError::PassesOver { partition, reached, from })
        }
        (Log::New { from: Some(from) }, _) if from < found.low || from > found.end => {
            Err(AdoptError::NotInLog { partition, from, low: found.low, end: found.end })
        }
        (Log::New { .. }, _) => Ok(None),
        (Log::Same, _) if topics.0.is_some() && topics.1.is_some() && topics.0 != topics.1 => {
            Err(AdoptError::OtherTopic { partition })
        }
        (Log::Same, Some(from)) if same_topic && from > found.end => {
            Err(AdoptError::Truncated { partition, from })
        }
        (Log::Same, _) => {
            let newest = committed.and_then(|(from, intent)| intent.newest_epoch(from));
            // If the log begins above `end`, retention has deleted the record, and its epoch cannot be compared.
            Ok(newest.filter(|(end, _)| *end >= found.low))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::intent::{Intent, LogMark, TopicId};
    use crate::protocol::progress::Offset;

    const TOPIC: Option<TopicId> = Some(TopicId(9));

    /// A state of Kafka in which offset 10 is committed. If `last` is given, a batch is declared that ends with the
    /// record at offset `last`. The commit names the topic id `topic`; the topic in Kafka has the id [`TOPIC`].
    fn found(last: Option<i64>, topic: Option<TopicId>) -> KafkaState {
        let log = LogMark { topic, epoch: Some(3) };
        let next = NextOffset::new;
        let intent = Intent { last: last.map(Offset::new), ..Intent::fresh(next(10), 7, 0, log) };
        let committed = Some((next(10), intent.to_string()));
        KafkaState { committed, low: next(3), end: next(20), topic: TOPIC }
    }

    /// Checks that [`check_log`] returns the `expected` record, or an error whose message contains the `expected` text.
    #[track_caller]
    fn check(log: Log, found: &KafkaState, expected: Result<Option<(i64, i32)>, &str>) {
        match (check_log(0, log, found), expected) {
            (Ok(asked), Ok(expected)) => {
                assert_eq!(asked.map(|(from, epoch)| (from.to_i64(), epoch)), expected);
            }
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (result, _) => panic!("{result:?}"),
        }
    }

    fn new(from: i64) -> Log {
        Log::New { from: Some(NextOffset::new(from)) }
    }

    #[test]
    fn a_log_truncated_below_the_records_read_is_not_the_same() {
        check(Log::Same, &found(None, TOPIC), Ok(Some((10, 3))));
        let shorter = KafkaState { end: NextOffset::new(9), ..found(None, TOPIC) };
        check(Log::Same, &shorter, Err("records below 10 were read from the log"));
        let inside = KafkaState { end: NextOffset::new(12), ..found(Some(14), TOPIC) };
        check(Log::Same, &inside, Err("records below 15 were read from the log"));
        // If retention has deleted the newest record that was read, the log does not count as truncated. If another
        // tool committed the offset, the commit has no intent, so there is nothing to compare.
        check(Log::Same, &KafkaState { low: NextOffset::new(11), ..found(None, TOPIC) }, Ok(None));
        let reset = KafkaState { committed: Some((NextOffset::ZERO, String::new())), ..found(None, TOPIC) };
        check(Log::Same, &reset, Ok(None));
        // If a batch is declared, the intent names the leader epoch of the last record of the batch. Intents of earlier
        // releases lack this epoch, so the last record before the batch is checked.
        let (from, metadata) = found(Some(14), TOPIC).committed.unwrap();
        check(Log::Same, &found(Some(14), TOPIC), Ok(Some((10, 3))));
        let intent = Intent { last_epoch: Some(4), ..metadata.parse().unwrap() };
        let declared = KafkaState { committed: Some((from, intent.to_string())), ..found(None, TOPIC) };
        check(Log::Same, &declared, Ok(Some((15, 4))));
        check(Log::Same, &found(None, Some(TopicId(8))), Err("deleted and created again"));
    }

    #[test]
    fn a_new_log_of_the_same_topic_needs_an_offset_that_skips_no_record() {
        let beginning = Log::New { from: None };
        check(beginning, &found(None, TOPIC), Err("the topic is the same as before"));
        check(beginning, &found(None, Some(TopicId(8))), Ok(None));
        check(beginning, &KafkaState { committed: None, ..found(None, TOPIC) }, Ok(None));
        check(new(10), &found(None, TOPIC), Ok(None));
        check(new(11), &found(None, TOPIC), Err("from offset 10 on, below offset 11, are in no table"));
        check(new(15), &found(Some(14), TOPIC), Ok(None));
        check(new(16), &found(Some(14), TOPIC), Err("from offset 15 on, below offset 16, are in no table"));
        check(new(16), &found(Some(14), Some(TopicId(8))), Ok(None));
        check(new(2), &found(None, TOPIC), Err("reading of the log can start at offsets 3 to 20"));
    }
}
