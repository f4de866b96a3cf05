//! The whole way, from HTTP to the answer, on real Kafka and real ClickHouse: see `tests/it`.
