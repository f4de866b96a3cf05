//! What an error of Kafka's client means for the records that follow. Pure.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What an error of Kafka's client means for the records that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The next offset is not in the log, or the log was truncated below it.
    Gone,
    /// Records are there that the client cannot read; it goes on behind them, or fetches them for ever.
    Unreadable,
    /// The client fetches again from the same offset, and succeeds once the cause is gone.
    Passing,
}

/// As librdkafka 2.12 has it (`rdkafka_msgset_reader.c`, `rdkafka_fetcher.c`): a record set with a bad
/// checksum or an unknown format is passed over, one that cannot be decompressed is fetched again.
pub(crate) fn fault(error: &KafkaError) -> Fault {
    use RDKafkaErrorCode as C;
    match error {
        KafkaError::MessageConsumption(C::AutoOffsetReset | C::OffsetOutOfRange | C::LogTruncation) => {
            Fault::Gone
        }
        KafkaError::MessageConsumption(
            C::TopicAuthorizationFailed
            | C::UnknownTopic
            | C::UnknownPartition
            | C::UnknownTopicOrPartition
            | C::BrokerTransportFailure
            | C::OperationTimedOut
            | C::RequestTimedOut,
        ) => Fault::Passing,
        // Also what nobody knows today: passing over records must not be the default.
        _ => Fault::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kafkas_client_cannot_read_is_never_passed_over() {
        use RDKafkaErrorCode as C;
        let of = |code| fault(&KafkaError::MessageConsumption(code));
        for code in [C::AutoOffsetReset, C::OffsetOutOfRange, C::LogTruncation] {
            assert_eq!(of(code), Fault::Gone, "{code:?}");
        }
        // A bad checksum, a record set that cannot be decompressed, a format of a later Kafka, and what
        // a broker cannot read itself.
        for code in [C::BadMessage, C::BadCompression, C::NotImplemented, C::InvalidMessage, C::Unknown] {
            assert_eq!(of(code), Fault::Unreadable, "{code:?}");
        }
        for code in [C::TopicAuthorizationFailed, C::UnknownTopicOrPartition, C::BrokerTransportFailure] {
            assert_eq!(of(code), Fault::Passing, "{code:?}");
        }
    }
}
