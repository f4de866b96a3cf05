CREATE TABLE IF NOT EXISTS ledger
(
    tenant LowCardinality(String) COMMENT '* in data rows, empty in marker rows',
    g UInt16 COMMENT 'generation of the Kafka log',
    kp UInt16 COMMENT 'Kafka partition',
    ko UInt64 COMMENT 'offset of the record',
    record_id UUID COMMENT 'identity of the record',
    kafka_time DateTime64(3, 'UTC') COMMENT 'when Kafka appended it',
    lines UInt32 COMMENT 'lines in the record',
    rejected UInt32 COMMENT 'lines that could not be read',
    duplicates UInt32 COMMENT 'lines dropped as repeats',
    stored UInt32 COMMENT 'lines stored: lines - rejected - duplicates',
    time_replaced UInt32 COMMENT 'stored lines whose client_time was not believed',
    ids Array(UInt64) COMMENT 'hashes of (tenant, event_id) of stored lines',
    hwm UInt64 COMMENT 'marker rows only: this table partition holds the Kafka partition below this offset',
    INDEX record_id_bloom record_id TYPE bloom_filter GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(kafka_time)
ORDER BY (tenant, g, kp, ko)
TTL toStartOfDay(toDateTime(kafka_time)) + INTERVAL 1 DAY + INTERVAL 30 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 50000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
