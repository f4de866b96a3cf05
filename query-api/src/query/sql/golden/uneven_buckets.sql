SELECT toUInt8(1) AS Part,
       toInt64(roundDown(toUnixTimestamp(T.bucket), {starts0:Array(UInt32)})) AS Start,
       CAST([], 'Array(Nullable(String))') AS Keys,
       CAST([toInt128(if(assumeNotNull((SELECT 16 * (sum(finalizeAggregation(T.sample1))) FROM rollup_states AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'users_all_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1788220800, 'UTC') AND T.bucket < toDateTime(1796083200, 'UTC'))) > 5000000, 16 * uniqExactMerge(T.sample1), uniqExactMerge(T.uniq1))) AS Figure0], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(assumeNotNull((SELECT 16 * (sum(finalizeAggregation(T.sample1))) FROM rollup_states AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'users_all_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1788220800, 'UTC') AND T.bucket < toDateTime(1796083200, 'UTC')))) AS Size,
       toUInt64(0) AS Total
FROM rollup_states AS T
WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'users_all_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1788220800, 'UTC') AND T.bucket < toDateTime(1796083200, 'UTC')
GROUP BY Start
HAVING count() > 0
-- tenant = Texts(["default"])
-- starts0 = Moments([1788220800, 1790812800, 1793491200])
-- SETTING max_execution_time = 10
-- SETTING max_rows_to_read = 200000000
-- SETTING read_overflow_mode = throw
-- SETTING max_result_rows = 100001
-- SETTING result_overflow_mode = throw
-- SETTING cancel_http_readonly_queries_on_client_close = 1
