SELECT toUInt8(0) AS part, assumeNotNull((SELECT argMax(known, g) FROM (SELECT g, if(count() >= max(partitions), toUnixTimestamp64Milli(min(as_of)), 0) AS known FROM progress FINAL GROUP BY g))) AS as_of, assumeNotNull((SELECT argMax(rollups, since) FROM configs)) AS rollups, assumeNotNull((SELECT if(argMax(rollups, since) IN (0, ?), '', JSONExtractString(argMax(declared, since), 'rollups')) FROM configs)) AS declared, (SELECT CAST(groupArray((Name, Since)), 'Array(Tuple(String, Int64))') FROM (SELECT toString(rollup) AS Name, toUnixTimestamp64Milli(max(since)) AS Since FROM rollup_since FINAL GROUP BY Name)) AS since, '' AS tenant, toUInt32(0) AS hour, toUInt64(0) AS users, toUInt64(0) AS impressions, toUInt64(0) AS clicks, '' AS country, toUInt64(0) AS views, toUInt64(0) AS plays, toUInt64(0) AS total, '' AS poll, '' AS option, toUInt64(0) AS votes, toUInt64(0) AS voters, toUInt32(0) AS start, '' AS event, toUInt64(0) AS events
UNION ALL
SELECT toUInt8(1), toInt64(0), toUInt64(0), '', CAST([], 'Array(Tuple(String, Int64))'), toString(who), toUnixTimestamp(hour), toUInt64(0), i, c, '', toUInt64(0), toUInt64(0), toUInt64(0), '', '', toUInt64(0), toUInt64(0), toUInt32(0), '', toUInt64(0) FROM (
    SELECT tenant AS who, bucket AS hour, sumIf(events, event = 'click') AS c, sumIf(events, event = 'impression') AS i FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.dim2 AS `country`, T.dim3 AS `device_os`, T.rows AS `events`, T.sum1 AS `value` FROM rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'event_hourly' AND T.expires = '2149-06-06')
    WHERE event IN ('click', 'impression') AND (tenant IN ? AND bucket >= toDateTime(?, 'UTC')
        OR (tenant, bucket) IN (SELECT W.1, toDateTime(W.2, 'UTC') FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(UInt32)'))) AS W)))
    GROUP BY who, hour
)
UNION ALL
SELECT toUInt8(2), toInt64(0), toUInt64(0), '', CAST([], 'Array(Tuple(String, Int64))'), toString(who), toUnixTimestamp(hour), people, toUInt64(0), toUInt64(0), '', toUInt64(0), toUInt64(0), toUInt64(0), '', '', toUInt64(0), toUInt64(0), toUInt32(0), '', toUInt64(0) FROM (
    SELECT tenant AS who, bucket AS hour, uniqExactMerge(users) AS people FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.uniq1 AS `users` FROM rollup_states AS T WHERE T.tenant != '' AND T.rollup = 'users_hourly' AND T.expires = '2149-06-06')
    WHERE event IN ('click', 'impression') AND (tenant, bucket) IN (
        SELECT who, hour FROM (
            SELECT who, hour, cost, sum(cost) OVER (ORDER BY hour >= toDateTime(?, 'UTC') DESC, changed DESC, hour DESC, who ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS running FROM (
                SELECT who, hour, counted != known AS changed,
                    if(known = 0, counted, least(counted, 2 * people + toUInt64(abs(toInt64(counted) - toInt64(known))))) AS cost
                FROM (SELECT who, hour, c + i AS counted FROM (
    SELECT tenant AS who, bucket AS hour, sumIf(events, event = 'click') AS c, sumIf(events, event = 'impression') AS i FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.dim2 AS `country`, T.dim3 AS `device_os`, T.rows AS `events`, T.sum1 AS `value` FROM rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'event_hourly' AND T.expires = '2149-06-06')
    WHERE event IN ('click', 'impression') AND (tenant IN ? AND bucket >= toDateTime(?, 'UTC')
        OR (tenant, bucket) IN (SELECT W.1, toDateTime(W.2, 'UTC') FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(UInt32)'))) AS W)))
    GROUP BY who, hour
)) AS C LEFT JOIN (
                    SELECT K.1 AS who, toDateTime(K.2, 'UTC') AS hour, K.3 AS known, K.4 AS people, K.5 AS settled
                    FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(UInt32)'), CAST(?, 'Array(UInt64)'), CAST(?, 'Array(UInt64)'), CAST(?, 'Array(UInt8)'))) AS K)
                ) AS M USING (who, hour)
                WHERE counted != known OR NOT settled
            )
        ) WHERE running - cost < ?
    )
    GROUP BY who, hour
)
UNION ALL
SELECT toUInt8(3), as_of, toUInt64(0), '', CAST([], 'Array(Tuple(String, Int64))'), toString(who), toUInt32(0), toUInt64(0), toUInt64(0), clicks, country, views, plays, total, '', '', toUInt64(0), toUInt64(0), toUInt32(0), '', toUInt64(0) FROM (
    SELECT who, CAST(country, 'String') AS country, max(moment) AS as_of, sum(t) AS total, sum(v) AS views, sum(p) AS plays, sum(c) AS clicks FROM (
        SELECT tenant AS who, country, toUnixTimestamp64Milli(as_of) AS moment, events AS t, toUInt64(0) AS v, toUInt64(0) AS p, toUInt64(0) AS c FROM country_totals WHERE tenant IN ?
        UNION ALL
        SELECT tenant, country, toInt64(0), toUInt64(0), sumIf(events, event = 'view'), sumIf(events, event = 'play'), sumIf(events, event = 'click') FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.dim2 AS `country`, T.rows AS `events` FROM rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'event_daily' AND T.expires = '2149-06-06')
        WHERE tenant IN ? AND bucket >= toDateTime(?, 'UTC') AND bucket < toDateTime(?, 'UTC') AND event IN ('view', 'play', 'click')
        GROUP BY tenant, country
    ) GROUP BY who, country HAVING total > 0 ORDER BY total DESC, country LIMIT 5 BY who
)
UNION ALL
SELECT toUInt8(4), toInt64(0), toUInt64(0), '', CAST([], 'Array(Tuple(String, Int64))'), toString(who), toUInt32(0), toUInt64(0), toUInt64(0), toUInt64(0), '', toUInt64(0), toUInt64(0), total, name, '', toUInt64(0), toUInt64(0), toUInt32(0), '', toUInt64(0) FROM (
    SELECT who, name, total FROM (
        SELECT who, name, total, row_number() OVER (PARTITION BY who ORDER BY total DESC, name) AS place FROM (
            SELECT tenant AS who, poll AS name, sum(votes) AS total FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `poll`, T.dim2 AS `option`, T.uniq1 AS `voters`, T.rows AS `votes` FROM rollup_states AS T WHERE T.tenant != '' AND T.rollup = 'poll_votes' AND T.expires = '2149-06-06') WHERE tenant IN ? AND poll != '' GROUP BY who, name HAVING total > 0
        )
    ) WHERE place <= ? OR (who, name) IN (SELECT W.1, W.2 FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(String)'))) AS W))
)
UNION ALL
SELECT toUInt8(5), toInt64(0), toUInt64(0), '', CAST([], 'Array(Tuple(String, Int64))'), toString(who), toUInt32(0), toUInt64(0), toUInt64(0), toUInt64(0), '', toUInt64(0), toUInt64(0), total, name, choice, counted, people, toUInt32(0), '', toUInt64(0) FROM (
    SELECT who, name, choice, counted, people, sum(counted) OVER (PARTITION BY who, name) AS total FROM (
        SELECT tenant AS who, poll AS name, option AS choice, sum(votes) AS counted, uniqExactMerge(voters) AS people FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `poll`, T.dim2 AS `option`, T.uniq1 AS `voters`, T.rows AS `votes` FROM rollup_states AS T WHERE T.tenant != '' AND T.rollup = 'poll_votes' AND T.expires = '2149-06-06')
        WHERE poll != '' AND (tenant, poll) IN (
            SELECT who, name FROM (
                SELECT who, name, cost, sum(cost) OVER (ORDER BY merged, total, who, name ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS running FROM (
                    SELECT who, name, total, merged, if(known = 0, total, least(total, people + toUInt64(abs(toInt64(total) - toInt64(known))))) AS cost
                    FROM (
    SELECT who, name, total FROM (
        SELECT who, name, total, row_number() OVER (PARTITION BY who ORDER BY total DESC, name) AS place FROM (
            SELECT tenant AS who, poll AS name, sum(votes) AS total FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `poll`, T.dim2 AS `option`, T.uniq1 AS `voters`, T.rows AS `votes` FROM rollup_states AS T WHERE T.tenant != '' AND T.rollup = 'poll_votes' AND T.expires = '2149-06-06') WHERE tenant IN ? AND poll != '' GROUP BY who, name HAVING total > 0
        )
    ) WHERE place <= ? OR (who, name) IN (SELECT W.1, W.2 FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(String)'))) AS W))
) AS C LEFT JOIN (
                        SELECT K.1 AS who, K.2 AS name, K.3 AS known, K.4 AS people, K.5 AS merged
                        FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(String)'), CAST(?, 'Array(UInt64)'), CAST(?, 'Array(UInt64)'), CAST(?, 'Array(UInt64)'))) AS K)
                    ) AS M USING (who, name)
                    WHERE total != known
                )
            ) WHERE running - cost < ?
        )
        GROUP BY who, name, choice HAVING counted > 0
    ) ORDER BY counted DESC, choice LIMIT ? BY who, name
)
UNION ALL
SELECT kind, toInt64(0), toUInt64(0), '', CAST([], 'Array(Tuple(String, Int64))'), toString(who), toUInt32(0), people, toUInt64(0), toUInt64(0), '', toUInt64(0), toUInt64(0), toUInt64(0), '', '', toUInt64(0), toUInt64(0), at, name, counted FROM (
    SELECT toUInt8(6) AS kind, tenant AS who, toUnixTimestamp(bucket) AS at, '' AS name, sum(events) AS counted, toUInt64(0) AS people FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.rows AS `events` FROM rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'event_minutely' AND T.bucket >= toDateTime(toDate(now('UTC')) - 7, 'UTC'))
    WHERE tenant IN ? AND bucket >= toDateTime(?, 'UTC') AND bucket <= toDateTime(?, 'UTC') GROUP BY tenant, bucket
    UNION ALL
    SELECT toUInt8(7), who, toUInt32(0), name, counted, toUInt64(0) FROM (
        SELECT tenant AS who, event AS name, sum(events) AS counted FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.dim2 AS `country`, T.dim3 AS `device_os`, T.rows AS `events`, T.sum1 AS `value` FROM rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'event_hourly' AND T.expires = '2149-06-06') WHERE tenant IN ? AND bucket = toDateTime(?, 'UTC')
        GROUP BY GROUPING SETS ((tenant, event), (tenant)) ORDER BY counted DESC, name LIMIT ? BY who)
    UNION ALL
    SELECT toUInt8(8), who, toUInt32(0), name, counted, toUInt64(0) FROM (
        SELECT tenant AS who, event AS name, sum(events) AS counted FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.dim2 AS `country`, T.rows AS `events` FROM rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'event_daily' AND T.expires = '2149-06-06') WHERE tenant IN ? AND bucket = toDateTime(?, 'UTC')
        GROUP BY GROUPING SETS ((tenant, event), (tenant)) ORDER BY counted DESC, name LIMIT ? BY who)
    UNION ALL
    SELECT toUInt8(9), tenant, toUInt32(0), '', toUInt64(0), uniqExactMerge(users) FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.uniq1 AS `users` FROM rollup_states AS T WHERE T.tenant != '' AND T.rollup = 'users_hourly' AND T.expires = '2149-06-06') WHERE tenant IN ? AND bucket = toDateTime(?, 'UTC')
        AND tenant NOT IN (SELECT tenant FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.dim2 AS `country`, T.dim3 AS `device_os`, T.rows AS `events`, T.sum1 AS `value` FROM rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'event_hourly' AND T.expires = '2149-06-06') WHERE tenant IN ? AND bucket = toDateTime(?, 'UTC') GROUP BY tenant HAVING (toString(tenant), sum(events)) IN (
            SELECT K.1, K.2 FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(UInt64)'))) AS K)))
    GROUP BY tenant
    UNION ALL
    SELECT toUInt8(10), tenant, toUInt32(0), '', toUInt64(0), uniqExactMerge(users) FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.uniq1 AS `users` FROM rollup_states AS T WHERE T.tenant != '' AND T.rollup = 'users_all_daily' AND T.expires = '2149-06-06') WHERE tenant IN ? AND bucket = toDateTime(?, 'UTC')
        AND tenant NOT IN (SELECT tenant FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.dim2 AS `country`, T.rows AS `events` FROM rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'event_daily' AND T.expires = '2149-06-06') WHERE tenant IN ? AND bucket = toDateTime(?, 'UTC') GROUP BY tenant HAVING (toString(tenant), sum(events)) IN (
            SELECT K.1, K.2 FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(UInt64)'))) AS K)))
    GROUP BY tenant
)
