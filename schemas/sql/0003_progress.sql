CREATE TABLE IF NOT EXISTS progress
(
    g UInt16 COMMENT 'generation of the Kafka log',
    kp UInt16 COMMENT 'Kafka partition',
    partitions UInt16 COMMENT 'partitions of the topic when it was written',
    next_offset UInt64 COMMENT 'everything below it is in every table',
    as_of DateTime64(3, 'UTC') COMMENT 'everything that was in Kafka before this moment is in every table'
)
ENGINE = ReplacingMergeTree(as_of)
ORDER BY (g, kp)
