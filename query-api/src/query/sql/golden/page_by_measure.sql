SELECT * FROM (
SELECT toUInt8(1) AS Part,
       toInt64(1795305600 + intDiv(toUnixTimestamp(T.bucket) - 1795305600, 86400) * 86400) AS Start,
       CAST([T.dim1 AS Key0], 'Array(Nullable(String))') AS Keys,
       CAST([sum(toInt128(T.rows)) AS Figure0], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(0) AS Size,
       toUInt64(count() OVER ()) AS Total
FROM rollup_sums AS T
WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795305600, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC')
GROUP BY Start, Key0
HAVING count() > 0
QUALIFY Figure0 > toInt128('7') OR Figure0 IS NULL OR Figure0 = toInt128('7') AND (Start, Key0) > (1795737600, {cursor:Array(String)}[1])
ORDER BY Figure0 ASC NULLS LAST, Start, Key0
LIMIT 6
)
-- tenant = Texts(["default"])
-- cursor = Texts(["a'"])
-- SETTING max_execution_time = 10
-- SETTING max_rows_to_read = 200000000
-- SETTING read_overflow_mode = throw
-- SETTING max_result_rows = 100001
-- SETTING result_overflow_mode = throw
-- SETTING cancel_http_readonly_queries_on_client_close = 1
