SELECT toUInt8(1) AS Part,
       toInt64(1795870800 + intDiv(toUnixTimestamp(T.bucket) - 1795870800, 3600) * 3600) AS Start,
       CAST([if(T.dim1 IN (SELECT T.dim1 FROM rollup_sums AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_hourly' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795870800, 'UTC') AND T.bucket < toDateTime(1795878000, 'UTC') AND T.dim1 != '' GROUP BY T.dim1 ORDER BY sum(toInt128(T.rows)) DESC NULLS LAST, T.dim1 LIMIT 3), toNullable(T.dim1), NULL) AS Key0], 'Array(Nullable(String))') AS Keys,
       CAST([sum(toInt128(T.rows)) AS Figure0], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(0) AS Size,
       toUInt64(0) AS Total
FROM rollup_sums AS T
WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_hourly' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795870800, 'UTC') AND T.bucket < toDateTime(1795878000, 'UTC')
GROUP BY Start, Key0
HAVING count() > 0
UNION ALL
SELECT toUInt8(2) AS Part,
       toInt64(1795863600) AS Start,
       CAST([if(T.dim1 IN (SELECT T.dim1 FROM rollup_sums AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_hourly' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795870800, 'UTC') AND T.bucket < toDateTime(1795878000, 'UTC') AND T.dim1 != '' GROUP BY T.dim1 ORDER BY sum(toInt128(T.rows)) DESC NULLS LAST, T.dim1 LIMIT 3), toNullable(T.dim1), NULL) AS Key0], 'Array(Nullable(String))') AS Keys,
       CAST([sum(toInt128(T.rows)) AS Figure0], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(0) AS Size,
       toUInt64(0) AS Total
FROM rollup_sums AS T
WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_hourly' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795863600, 'UTC') AND T.bucket < toDateTime(1795867200, 'UTC')
GROUP BY Start, Key0
HAVING count() > 0
UNION ALL
SELECT toUInt8(3) AS Part,
       toInt64(1795874400) AS Start,
       CAST([if(T.dim1 IN (SELECT T.dim1 FROM rollup_sums AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_hourly' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795870800, 'UTC') AND T.bucket < toDateTime(1795878000, 'UTC') AND T.dim1 != '' GROUP BY T.dim1 ORDER BY sum(toInt128(T.rows)) DESC NULLS LAST, T.dim1 LIMIT 3), toNullable(T.dim1), NULL) AS Key0], 'Array(Nullable(String))') AS Keys,
       CAST([sum(toInt128(T.rows)) AS Figure0], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(0) AS Size,
       toUInt64(0) AS Total
FROM rollup_sums AS T
WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_minutely' AND T.bucket >= toDateTime(toDate(now('UTC')) - 7, 'UTC') AND T.expires BETWEEN toDate(20794) AND toDate(20794) AND T.bucket >= toDateTime(1795874400, 'UTC') AND T.bucket < toDateTime(1795875600, 'UTC')
GROUP BY Start, Key0
HAVING count() > 0
UNION ALL
SELECT toUInt8(4) AS Part,
       toInt64(1795867200) AS Start,
       CAST([if(T.dim1 IN (SELECT T.dim1 FROM rollup_sums AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_hourly' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795870800, 'UTC') AND T.bucket < toDateTime(1795878000, 'UTC') AND T.dim1 != '' GROUP BY T.dim1 ORDER BY sum(toInt128(T.rows)) DESC NULLS LAST, T.dim1 LIMIT 3), toNullable(T.dim1), NULL) AS Key0], 'Array(Nullable(String))') AS Keys,
       CAST([sum(toInt128(T.rows)) AS Figure0], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(0) AS Size,
       toUInt64(0) AS Total
FROM rollup_sums AS T
WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'event_minutely' AND T.bucket >= toDateTime(toDate(now('UTC')) - 7, 'UTC') AND T.expires BETWEEN toDate(20794) AND toDate(20794) AND T.bucket >= toDateTime(1795867200, 'UTC') AND T.bucket < toDateTime(1795868400, 'UTC')
GROUP BY Start, Key0
HAVING count() > 0
-- tenant = Texts(["default"])
-- SETTING max_execution_time = 10
-- SETTING max_rows_to_read = 200000000
-- SETTING read_overflow_mode = throw
-- SETTING max_result_rows = 400004
-- SETTING result_overflow_mode = throw
-- SETTING cancel_http_readonly_queries_on_client_close = 1
