CREATE TABLE IF NOT EXISTS events
(
    tenant LowCardinality(String) COMMENT 'whose data it is, empty in marker rows',
    event LowCardinality(String) COMMENT 'name',
    client_time DateTime64(3, 'UTC') COMMENT 'when it happened, as sent, server_time if nothing was sent' CODEC(Delta, ZSTD(1)),
    server_time DateTime64(3, 'UTC') COMMENT 'when the request arrived' CODEC(Delta, ZSTD(1)),
    ip IPv6 COMMENT 'address of the client',
    user_id String COMMENT 'who did it',
    device_id String COMMENT 'on which device',
    device_os LowCardinality(String) COMMENT 'operating system of the device',
    session String COMMENT 'session it belongs to',
    sequence UInt64 COMMENT 'position in the session' CODEC(Delta, ZSTD(1)),
    param_int Int64 COMMENT 'a number of the client''s' CODEC(ZSTD(1)),
    param_str String COMMENT 'a text of the client''s',
    country LowCardinality(String) COMMENT 'two or three letters, upper case',
    event_id UUID COMMENT 'identity for deduplication, zero if none',
    props String DEFAULT '{}' COMMENT 'all other fields, as JSON text' CODEC(ZSTD(1)),
    place UInt16 COMMENT 'keyed hash of user_id, else device_id, and the hour: keeps rows of one device together',
    cfg UInt64 COMMENT 'declaration under which it was stored',
    g UInt16 COMMENT 'generation of the Kafka log',
    kp UInt16 COMMENT 'Kafka partition',
    ko UInt64 COMMENT 'offset of its record' CODEC(Delta, ZSTD(1)),
    line UInt16 COMMENT 'position among the stored lines of its record' CODEC(Delta, ZSTD(1)),
    hwm UInt64 COMMENT 'marker rows only: this table partition holds the Kafka partition below this offset',
    INDEX client_time_range client_time TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(server_time)
ORDER BY (tenant, toStartOfHour(client_time), place, g, kp)
TTL toStartOfDay(toDateTime(server_time)) + INTERVAL 1 DAY + INTERVAL 31 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 50000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
