//! Reads the records of a partition from its queue in Kafka's client.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _, Timestamp};
use schemas::record::{Head, HeadError};
use schemas::time::{SECOND, UnixMillis};
use uuid::Uuid;

use crate::kafka::group_context::GroupContext;

/// Maximum number and maximum bytes of the records that are polled ahead of the record that is decoded next.
const MAX_RECORDS_AHEAD: usize = 1000;
const MAX_BYTES_AHEAD: usize = 8 << 20;

/// A record that Kafka appended longer ago than this, in milliseconds, belongs to a backlog.
const BACKLOG_AGE_MS: i64 = 15 * SECOND;

/// The records of the partition in their order. `ahead` has the records that were already polled but not decoded.
pub(super) struct Records<'q> {
    pub(super) queue: &'q PartitionQueue<GroupContext>,
    pub(super) ahead: VecDeque<KafkaResult<BorrowedMessage<'q>>>,
}

impl<'q> Records<'q> {
    pub(super) fn next(&mut self, wait: Duration) -> Option<KafkaResult<BorrowedMessage<'q>>> {
        self.ahead.pop_front().or_else(|| self.queue.poll(wait))
    }

    /// Polls further records ahead, as far as the client has fetched them. Returns the ids of all records ahead that
    /// came through a spool. The caller then asks ClickHouse for all of these ids in one query. After an outage, many
    /// records come through a spool, and one query for each of them would take hours.
    pub(super) fn spooled_ahead(&mut self) -> HashSet<Uuid> {
        let bytes = |ahead: &VecDeque<KafkaResult<BorrowedMessage<'_>>>| -> usize {
            ahead.iter().flatten().map(BorrowedMessage::payload_len).sum()
        };
        let mut left = MAX_BYTES_AHEAD.saturating_sub(bytes(&self.ahead));
        while self.ahead.len() < MAX_RECORDS_AHEAD
            && left > 0
            && let Some(next) = self.queue.poll(Duration::ZERO)
        {
            left = left.saturating_sub(next.as_ref().map_or(0, BorrowedMessage::payload_len));
            self.ahead.push_back(next);
        }
        let heads = self.ahead.iter().flatten().map(|message| head(message));
        heads.flatten().filter(|head| head.spooled).map(|head| head.id).collect()
    }
}

/// Reads the headers of a record.
pub(super) fn head(message: &BorrowedMessage<'_>) -> Result<Head, HeadError> {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Head::read(headers.map(|header| (header.key, header.value.unwrap_or_default())))
}

/// When Kafka appended the record; `None` if the producer set the time, because such times may go backwards.
pub(super) fn append_time(message: &BorrowedMessage<'_>) -> Option<UnixMillis> {
    match message.timestamp() {
        Timestamp::LogAppendTime(millis) => Some(UnixMillis(millis)),
        Timestamp::CreateTime(_) | Timestamp::NotAvailable => None,
    }
}

/// Whether the record belongs to a backlog. During a backlog, batches stay open longer and grow larger, because smaller
/// batches would not make any answer fresher.
pub(super) fn is_backlog(message: &BorrowedMessage<'_>, now: UnixMillis) -> bool {
    message.timestamp().to_millis().is_some_and(|millis| now.0 - millis > BACKLOG_AGE_MS)
}
