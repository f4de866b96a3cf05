SELECT toUInt8(1) AS Part,
       toInt64(1795791600) AS Start,
       CAST([], 'Array(Nullable(String))') AS Keys,
       CAST([sum(toInt128(T.rows)) AS Figure0], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(0) AS Size,
       toUInt64(0) AS Total
FROM rollup_sums AS T
WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_hourly' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795791600, 'UTC') AND T.bucket < toDateTime(1795878000, 'UTC')
GROUP BY Start
HAVING count() > 0
-- tenant = Texts(["default"])
-- SETTING max_execution_time = 10
-- SETTING max_rows_to_read = 200000000
-- SETTING read_overflow_mode = throw
-- SETTING max_result_rows = 100001
-- SETTING result_overflow_mode = throw
-- SETTING cancel_http_readonly_queries_on_client_close = 1
