CREATE TABLE IF NOT EXISTS configs
(
    cfg UInt64 COMMENT 'hash of the declaration, as intents and rows have it',
    rollups UInt64 COMMENT 'hash of its rollups',
    declared String COMMENT 'the declaration, as JSON',
    since DateTime64(3, 'UTC') COMMENT 'when an aggregator started with it'
)
ENGINE = MergeTree
ORDER BY since
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480
