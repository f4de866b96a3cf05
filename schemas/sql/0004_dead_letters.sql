CREATE TABLE IF NOT EXISTS dead_letters
(
    tenant LowCardinality(String) COMMENT 'whose data it is, ? if unknown, empty in marker rows',
    reason LowCardinality(String) COMMENT 'why it is no row, as a stable code',
    g UInt16 COMMENT 'generation of the Kafka log',
    kp UInt16 COMMENT 'Kafka partition',
    ko UInt64 COMMENT 'offset of its record',
    line UInt32 COMMENT 'position among all lines of its record',
    text String COMMENT 'its first 4 KiB, with U+FFFD for what is not UTF-8',
    kafka_time DateTime64(3, 'UTC') COMMENT 'when Kafka appended its record',
    cfg UInt64 COMMENT 'declaration under which it was read',
    hwm UInt64 COMMENT 'marker rows only: this table partition holds the Kafka partition below this offset'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(kafka_time)
ORDER BY (tenant, g, kp, ko, line)
TTL toStartOfDay(toDateTime(kafka_time)) + INTERVAL 1 DAY + INTERVAL 14 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 50000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
