SELECT * FROM (
SELECT toUInt8(1) AS Part,
       toInt64(1795737600) AS Start,
       CAST([T.dim1 AS Key0], 'Array(Nullable(String))') AS Keys,
       CAST([sum(toInt128(T.rows)) AS Figure0, sum(toInt128(T.sum1)) AS Figure1, nullIf(min(T.min1), toInt128('170141183460469231731687303715884105727')) AS Figure2, nullIf(max(T.max1), toInt128('-170141183460469231731687303715884105728')) AS Figure3, toInt128(if(assumeNotNull((SELECT 16 * (sum(finalizeAggregation(T.sample1))) FROM rollup_states AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'spent' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795737600, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC'))) > 5000000, 16 * uniqExactMerge(T.sample1), uniqExactMerge(T.uniq1))) AS Figure4], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(assumeNotNull((SELECT 16 * (sum(finalizeAggregation(T.sample1))) FROM rollup_states AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'spent' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795737600, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC')))) AS Size,
       toUInt64(count() OVER ()) AS Total
FROM rollup_states AS T
WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'spent' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795737600, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC')
GROUP BY Start, Key0
HAVING count() > 0
ORDER BY Figure0 DESC NULLS LAST, Key0
LIMIT 1001
)
-- tenant = Texts(["default"])
-- filter0 = Texts(["purchase"])
-- SETTING max_execution_time = 10
-- SETTING max_rows_to_read = 200000000
-- SETTING read_overflow_mode = throw
-- SETTING max_result_rows = 100001
-- SETTING result_overflow_mode = throw
-- SETTING cancel_http_readonly_queries_on_client_close = 1
