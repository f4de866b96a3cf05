CREATE TABLE IF NOT EXISTS audits
(
    audited_at DateTime64(3, 'UTC') COMMENT 'when the audit began, one value for all of its rows',
    table LowCardinality(String) COMMENT 'the table that was audited',
    part String COMMENT 'what of it: all, a day of events, or offsets of a Kafka partition',
    expected UInt64 COMMENT 'rows or events that it must hold',
    found UInt64 COMMENT 'rows or events that it holds',
    missing UInt64 COMMENT 'of the expected ones, those that are not there',
    duplicate UInt64 COMMENT 'those that are there and not expected',
    note String COMMENT 'what could not be compared, and why, empty if all was'
)
ENGINE = MergeTree
ORDER BY (audited_at, table)
TTL toDateTime(audited_at) + INTERVAL 180 DAY
SETTINGS old_parts_lifetime = 480
