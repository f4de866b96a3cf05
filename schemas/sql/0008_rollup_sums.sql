CREATE TABLE IF NOT EXISTS rollup_sums
(
    tenant LowCardinality(String) COMMENT 'whose data it is, empty in marker rows',
    rollup LowCardinality(String) COMMENT 'name of the rollup, empty in marker rows but those of a backfill',
    bucket DateTime('UTC') COMMENT 'start of the bucket, 1970-01-01 where there is but one',
    dim1 String COMMENT 'dimension 1 of the rollup, as declared',
    dim2 String COMMENT 'dimension 2 of the rollup, as declared',
    dim3 String COMMENT 'dimension 3 of the rollup, as declared',
    dim4 String COMMENT 'dimension 4 of the rollup, as declared',
    dim5 String COMMENT 'dimension 5 of the rollup, as declared',
    dim6 String COMMENT 'dimension 6 of the rollup, as declared',
    g UInt16 COMMENT 'marker rows only: generation of the Kafka log',
    kp UInt16 COMMENT 'marker rows only: Kafka partition',
    expires Date COMMENT 'the first day on which the table partition may be dropped, 2149-06-06 for never',
    hwm SimpleAggregateFunction(max, UInt64) COMMENT 'marker rows only: this table partition holds the Kafka partition below this offset',
    rows UInt64 COMMENT 'number of events, 1 in marker rows',
    sum1 Int128 COMMENT 'sum 1 of the rollup, by name',
    sum2 Int128 COMMENT 'sum 2 of the rollup, by name',
    sum3 Int128 COMMENT 'sum 3 of the rollup, by name',
    sum4 Int128 COMMENT 'sum 4 of the rollup, by name'
)
ENGINE = SummingMergeTree()
PARTITION BY expires
ORDER BY (tenant, rollup, bucket, dim1, dim2, dim3, dim4, dim5, dim6, g, kp)
TTL toDateTime64(expires, 0, 'UTC')
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 50000, fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480, index_granularity = 128
