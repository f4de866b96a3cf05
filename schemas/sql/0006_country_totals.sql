CREATE MATERIALIZED VIEW IF NOT EXISTS country_totals
REFRESH EVERY 5 SECOND
(
    tenant LowCardinality(String) COMMENT 'whose data it is',
    country LowCardinality(String) COMMENT 'two or three letters, upper case',
    events UInt64 COMMENT 'views, plays and clicks of all time'
)
ENGINE = MergeTree
ORDER BY (tenant, country)
AS SELECT tenant, country, sum(events) AS events
FROM event_daily
WHERE tenant != '' AND country != '' AND event IN ('view', 'play', 'click')
GROUP BY tenant, country
