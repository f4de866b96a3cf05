CREATE TABLE IF NOT EXISTS rollup_since
(
    rollup String COMMENT 'name of the rollup',
    kp UInt16 COMMENT 'Kafka partition',
    since DateTime64(3, 'UTC') COMMENT 'the rollup has every event of the partition with this server_time or a later one. 1970-01-01, or no row: every event. 2299-12-31: events are not counted at present. After a backfill: the first day that the raw table held completely',
    noted DateTime64(3, 'UTC') COMMENT 'by the clock of ClickHouse, the latest row of a rollup and partition is valid'
)
ENGINE = ReplacingMergeTree(noted)
ORDER BY (rollup, kp)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
