//! Classifies errors that Kafka's client returns instead of records. Pure.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The consequence of an error of Kafka's client for the records that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The next offset is not in the log, or the log was truncated below that offset.
    OffsetGone,
    /// The log holds records that the client cannot read. The client would skip these records or fetch them endlessly.
    Unreadable,
    /// The client fetches from the same offset again, which succeeds once the cause is gone.
    Transient,
}

/// Classifies an error by what librdkafka 2.12 does after it (`rdkafka_msgset_reader.c`, `rdkafka_fetcher.c`). For
/// example, librdkafka skips a record set that has a bad checksum or an unknown format, and endlessly repeats the fetch
/// of a record set that it cannot decompress.
pub(crate) fn classify(error: &KafkaError) -> ReadError {
    use RDKafkaErrorCode as C;
    match error {
        KafkaError::MessageConsumption(C::AutoOffsetReset | C::OffsetOutOfRange | C::LogTruncation) => {
            ReadError::OffsetGone
        }
        KafkaError::MessageConsumption(
            C::TopicAuthorizationFailed
            | C::UnknownTopic
            | C::UnknownPartition
            | C::UnknownTopicOrPartition
            | C::BrokerTransportFailure
            | C::OperationTimedOut
            | C::RequestTimedOut,
        ) => ReadError::Transient,
        // Every other error counts as unreadable, even one with an unknown code, because no record may be skipped by
        // default.
        _ => ReadError::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_kafkas_client_cannot_read_are_never_skipped() {
        use RDKafkaErrorCode as C;
        let of = |code| classify(&KafkaError::MessageConsumption(code));
        for code in [C::AutoOffsetReset, C::OffsetOutOfRange, C::LogTruncation] {
            assert_eq!(of(code), ReadError::OffsetGone, "{code:?}");
        }
        // A bad checksum, a record set that cannot be decompressed, a record format of a later Kafka, and errors of a
        // broker that cannot read its own records.
        for code in [C::BadMessage, C::BadCompression, C::NotImplemented, C::InvalidMessage, C::Unknown] {
            assert_eq!(of(code), ReadError::Unreadable, "{code:?}");
        }
        for code in [C::TopicAuthorizationFailed, C::UnknownTopicOrPartition, C::BrokerTransportFailure] {
            assert_eq!(of(code), ReadError::Transient, "{code:?}");
        }
    }
}
