SELECT toUInt8(1) AS Part,
       toInt64(1795737600) AS Start,
       CAST([], 'Array(Nullable(String))') AS Keys,
       CAST([sum(toInt128(T.rows)) AS Figure0], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(0) AS Size,
       toUInt64(0) AS Total
FROM rollup_sums AS T
WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795737600, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC') AND T.dim1 IN {filter0:Array(String)} AND T.dim1 NOT IN {filter1:Array(String)} AND startsWith(T.dim2, {filter2:Array(String)}[1]) AND position(T.dim2, {filter3:Array(String)}[1]) > 0 AND T.dim2 NOT IN {filter4:Array(String)} AND T.dim1 IN {filter5:Array(String)}
GROUP BY Start
HAVING count() > 0
-- tenant = Texts(["default"])
-- filter0 = Texts(["a", "b"])
-- filter1 = Texts(["c"])
-- filter2 = Texts(["D"])
-- filter3 = Texts(["E"])
-- filter4 = Texts([""])
-- filter5 = Texts(["a"])
-- SETTING max_execution_time = 10
-- SETTING max_rows_to_read = 200000000
-- SETTING read_overflow_mode = throw
-- SETTING max_result_rows = 100001
-- SETTING result_overflow_mode = throw
-- SETTING cancel_http_readonly_queries_on_client_close = 1
