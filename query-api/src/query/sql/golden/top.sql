SELECT toUInt8(1) AS Part,
       toInt64(1795737600 + intDiv(toUnixTimestamp(T.bucket) - 1795737600, 86400) * 86400) AS Start,
       CAST([if(T.dim1 IN (SELECT T.dim1 FROM rollup_sums AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795737600, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC') AND T.dim1 NOT IN {filter0:Array(String)} AND T.dim1 != '' GROUP BY T.dim1 ORDER BY sum(toInt128(T.rows)) DESC NULLS LAST, T.dim1 LIMIT 3), toNullable(T.dim1), NULL) AS Key0], 'Array(Nullable(String))') AS Keys,
       CAST([sum(toInt128(T.rows)) AS Figure0], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(0) AS Size,
       toUInt64(0) AS Total
FROM rollup_sums AS T
WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795737600, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC') AND T.dim1 NOT IN {filter0:Array(String)}
GROUP BY Start, Key0
HAVING count() > 0
UNION ALL
SELECT toUInt8(2) AS Part,
       toInt64(1795737600 + intDiv(toUnixTimestamp(T.bucket) - 1795737600, 86400) * 86400) AS Start,
       CAST([if(T.dim1 IN (SELECT T.dim1 FROM rollup_sums AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795737600, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC') AND T.dim1 NOT IN {filter0:Array(String)} AND T.dim1 != '' GROUP BY T.dim1 ORDER BY sum(toInt128(T.rows)) DESC NULLS LAST, T.dim1 LIMIT 3), toNullable(T.dim1), NULL) AS Key0], 'Array(Nullable(String))') AS Keys,
       CAST([toInt128(if(assumeNotNull((SELECT 16 * (sum(finalizeAggregation(T.sample1))) FROM rollup_states AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'users_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795737600, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC') AND T.dim1 NOT IN {filter0:Array(String)})) > 5000000, 16 * uniqExactMerge(T.sample1), uniqExactMerge(T.uniq1))) AS Figure0], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(assumeNotNull((SELECT 16 * (sum(finalizeAggregation(T.sample1))) FROM rollup_states AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'users_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795737600, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC') AND T.dim1 NOT IN {filter0:Array(String)}))) AS Size,
       toUInt64(0) AS Total
FROM rollup_states AS T
WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'users_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795737600, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC') AND T.dim1 NOT IN {filter0:Array(String)}
GROUP BY Start, Key0
HAVING count() > 0
-- tenant = Texts(["default"])
-- filter0 = Texts(["x"])
-- SETTING max_execution_time = 10
-- SETTING max_rows_to_read = 200000000
-- SETTING read_overflow_mode = throw
-- SETTING max_result_rows = 200002
-- SETTING result_overflow_mode = throw
-- SETTING cancel_http_readonly_queries_on_client_close = 1
