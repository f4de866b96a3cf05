//! Functions that only the C interface of librdkafka offers: topic ids, leader epochs and member ids.
//!
//! The `rdkafka` crate wraps none of them. This is the only file of `stream-agg` with unsafe code. Each function frees
//! everything that it allocates, and no pointer leaves this file.

#![expect(
    unsafe_code,
    reason = "the crate rdkafka has no functions for DescribeTopics, leader epochs and member ids"
)]

use std::ffi::{CStr, CString, c_int};
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as c;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;

use crate::protocol::intent::TopicId;

/// How Kafka describes a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicDescription {
    /// The id; `None` if the brokers do not support topic ids.
    pub id: Option<TopicId>,
    /// How many partitions the topic has.
    pub partitions: u16,
}

/// The current description of `topic`. Blocks.
///
/// # Errors
/// Kafka did not answer within `timeout`, or has no such topic.
pub fn describe_topic(
    consumer: &BaseConsumer,
    topic: &str,
    timeout: Duration,
) -> Result<TopicDescription, RDKafkaErrorCode> {
    let Ok(name) = CString::new(topic) else { return Err(RDKafkaErrorCode::InvalidArgument) };
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let client = consumer.client().native_ptr();
    // SAFETY: `client` lives as long as `consumer`, and `name` until the end of the function; librdkafka copies the
    // names. Each object is destroyed once, after its last use. The description is copied before its event is
    // destroyed.
    unsafe {
        let mut names = [name.as_ptr()];
        let topics = c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options =
            c::rd_kafka_AdminOptions_new(client, c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        c::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        let queue = c::rd_kafka_queue_new(client);
        c::rd_kafka_DescribeTopics(client, topics, options, queue);
        // If the request times out, librdkafka adds an event with the error to `queue`. To receive this event, the poll
        // waits one second longer than the timeout of the request.
        let event = c::rd_kafka_queue_poll(queue, millis.saturating_add(1000));
        let described = described(event);
        if !event.is_null() {
            c::rd_kafka_event_destroy(event);
        }
        c::rd_kafka_queue_destroy(queue);
        c::rd_kafka_AdminOptions_destroy(options);
        c::rd_kafka_TopicCollection_destroy(topics);
        described
    }
}

/// The description of the requested topic, from the event that answers the request.
///
/// # Safety
/// `event` must be null, or an event that is not destroyed yet.
unsafe fn described(event: *mut c::rd_kafka_event_t) -> Result<TopicDescription, RDKafkaErrorCode> {
    if event.is_null() {
        return Err(RDKafkaErrorCode::OperationTimedOut);
    }
    // SAFETY: the event is not destroyed yet, and everything that is read from it lives as long as the event.
    unsafe {
        no_error(c::rd_kafka_event_error(event))?;
        let result = c::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let mut count = 0;
        let topics = c::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count == 0 || topics.is_null() {
            return Err(RDKafkaErrorCode::UnknownTopic);
        }
        let topic = slice::from_raw_parts(topics, count)[0];
        no_error(c::rd_kafka_error_code(c::rd_kafka_TopicDescription_error(topic)))?;
        let mut partitions = 0;
        c::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let partitions = u16::try_from(partitions).map_err(|_| RDKafkaErrorCode::InvalidPartitions)?;
        let id = c::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() {
            return Ok(TopicDescription { id: None, partitions });
        }
        let half = |bits: i64| u128::from(bits.cast_unsigned());
        let (most, least) =
            (c::rd_kafka_Uuid_most_significant_bits(id), c::rd_kafka_Uuid_least_significant_bits(id));
        let id = half(most) << 64 | half(least);
        // Brokers before 2.8 send no topic id; librdkafka then reports a zero id.
        Ok(TopicDescription { id: (id != 0).then_some(TopicId(id)), partitions })
    }
}

fn no_error(code: RDKafkaRespErr) -> Result<(), RDKafkaErrorCode> {
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => Ok(()),
        error => Err(error),
    }
}

/// The id that the group coordinator gave this member; empty while the member has none. The id changes only after the
/// coordinator removed the member.
pub fn member_id<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> String {
    let client = consumer.client().native_ptr();
    // SAFETY: the client lives until the end of the function. This function owns the string `id`, copies it and frees
    // it once.
    unsafe {
        let id = c::rd_kafka_memberid(client);
        if id.is_null() {
            return String::new();
        }
        let copy = CStr::from_ptr(id).to_string_lossy().into_owned();
        c::rd_kafka_mem_free(client, id.cast());
        copy
    }
}

/// The leader epoch of a record; `None` if the format of the record has none.
pub fn leader_epoch(record: &BorrowedMessage<'_>) -> Option<i32> {
    // SAFETY: the record lives until the end of the function.
    let epoch = unsafe { c::rd_kafka_message_leader_epoch(record.ptr()) };
    Some(epoch).filter(|epoch| *epoch >= 0)
}

/// Adds a leader epoch to the entry of `partition` in `list`, a list of offsets that the consumer is about to seek to.
/// `epoch` is the leader epoch of the record before the offset. During the seek, librdkafka then asks the broker
/// whether the log was truncated below the offset.
pub fn set_leader_epoch(list: &TopicPartitionList, topic: &str, partition: i32, epoch: i32) {
    // SAFETY: the list lives until the end of the function, and so do its elements.
    unsafe {
        if let Some(element) = element(list, topic, partition) {
            c::rd_kafka_topic_partition_set_leader_epoch(element, epoch);
        }
    }
}

/// The element of a partition, which lives as long as `list`.
fn element(
    list: &TopicPartitionList,
    topic: &str,
    partition: i32,
) -> Option<*mut c::rd_kafka_topic_partition_t> {
    let name = CString::new(topic).ok()?;
    // SAFETY: list and name live until the end of the call.
    let found = unsafe { c::rd_kafka_topic_partition_list_find(list.ptr(), name.as_ptr(), partition) };
    (!found.is_null()).then_some(found)
}
