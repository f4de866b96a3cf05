CREATE MATERIALIZED VIEW IF NOT EXISTS country_totals
REFRESH EVERY 5 SECOND
(
    tenant LowCardinality(String) COMMENT 'whose data it is',
    country LowCardinality(String) COMMENT 'two or three letters, upper case',
    events UInt64 COMMENT 'views, plays and clicks of all time',
    as_of DateTime64(3, 'UTC') COMMENT 'everything that was in Kafka before this moment is counted'
)
ENGINE = MergeTree
ORDER BY (tenant, country)
AS SELECT
    tenant,
    country,
    sum(events) AS events,
    (SELECT if(count() >= max(partitions), min(as_of), toDateTime64(0, 3, 'UTC')) FROM (SELECT kp, max(partitions) AS partitions, max(as_of) AS as_of FROM progress WHERE g = (SELECT max(g) FROM progress) GROUP BY kp)) AS as_of
FROM {event_daily}
WHERE country != '' AND event IN ('view', 'play', 'click')
GROUP BY tenant, country
