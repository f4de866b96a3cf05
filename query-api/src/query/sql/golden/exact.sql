SELECT toUInt8(0) AS part,
       toInt64(assumeNotNull((SELECT if(count() >= max(partitions), toUnixTimestamp64Milli(min(as_of)), 0) FROM (SELECT kp, max(partitions) AS partitions, max(as_of) AS as_of FROM progress WHERE g = (SELECT max(g) FROM progress) GROUP BY kp)))) AS start,
       CAST(arrayConcat([assumeNotNull((SELECT if(argMax(rollups, since) IN (0, 7), '', JSONExtractString(argMax(declared, since), 'rollups')) FROM configs))], arrayMap(at -> at.1, (SELECT groupArray((Name, Since)) FROM (SELECT toString(rollup) AS Name, toUnixTimestamp64Milli(max(since)) AS Since FROM rollup_since FINAL GROUP BY Name)))), 'Array(Nullable(String))') AS keys,
       CAST(arrayMap(at -> at.2, (SELECT groupArray((Name, Since)) FROM (SELECT toString(rollup) AS Name, toUnixTimestamp64Milli(max(since)) AS Since FROM rollup_since FINAL GROUP BY Name))), 'Array(Nullable(Int128))') AS figures,
       toUInt64(0) AS size,
       toUInt64(0) AS total
UNION ALL
SELECT * FROM (
SELECT toUInt8(1) AS Part,
       toInt64(1795737600) AS Start,
       CAST([S.`event` AS Key0], 'Array(Nullable(String))') AS Keys,
       CAST([toInt128(uniqExactMerge(S.`users`)) AS Figure0], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(0) AS Size,
       toUInt64(count() OVER ()) AS Total
FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.uniq1 AS `users`, T.sample1 AS `Sample_users` FROM rollup_states AS T WHERE T.tenant != '' AND T.rollup = 'users_daily') AS S
WHERE S.tenant IN {tenant:Array(String)} AND S.bucket >= toDateTime(1795737600, 'UTC') AND S.bucket < toDateTime(1795910400, 'UTC')
GROUP BY Start, Key0
HAVING count() > 0
ORDER BY Figure0 DESC NULLS LAST, Key0
LIMIT 1001
)
-- tenant = Texts(["default"])
-- SETTING max_execution_time = 10
-- SETTING max_rows_to_read = 200000000
-- SETTING read_overflow_mode = throw
-- SETTING max_result_rows = 100002
-- SETTING result_overflow_mode = throw
-- SETTING cancel_http_readonly_queries_on_client_close = 1
