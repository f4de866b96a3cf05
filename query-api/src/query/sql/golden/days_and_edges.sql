SELECT toUInt8(1) AS Part,
       toInt64(1795647600) AS Start,
       CAST([], 'Array(Nullable(String))') AS Keys,
       CAST([toInt128(if(assumeNotNull((SELECT 16 * (sum(finalizeAggregation(S.`Sample_users`))) FROM ( SELECT T.bucket AS bucket, T.uniq1 AS `users`, T.sample1 AS `Sample_users` FROM rollup_states AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'users_all_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795647600, 'UTC') AND T.bucket < toDateTime(1795906800, 'UTC') AND T.bucket NOT IN (toDateTime(1795564800, 'UTC'), toDateTime(1795824000, 'UTC')) UNION ALL SELECT T.bucket AS bucket, T.uniq1 AS `users`, T.sample1 AS `Sample_users` FROM rollup_states AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'users_hourly' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795647600, 'UTC') AND T.bucket < toDateTime(1795906800, 'UTC') AND (T.bucket >= toDateTime(1795564800, 'UTC') AND T.bucket < toDateTime(1795651200, 'UTC') OR T.bucket >= toDateTime(1795824000, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC')) ) AS S WHERE 1)) > 5000000, 16 * uniqExactMerge(S.`Sample_users`), uniqExactMerge(S.`users`))) AS Figure0], 'Array(Nullable(Int128))') AS Figures,
       toUInt64(assumeNotNull((SELECT 16 * (sum(finalizeAggregation(S.`Sample_users`))) FROM ( SELECT T.bucket AS bucket, T.uniq1 AS `users`, T.sample1 AS `Sample_users` FROM rollup_states AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'users_all_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795647600, 'UTC') AND T.bucket < toDateTime(1795906800, 'UTC') AND T.bucket NOT IN (toDateTime(1795564800, 'UTC'), toDateTime(1795824000, 'UTC')) UNION ALL SELECT T.bucket AS bucket, T.uniq1 AS `users`, T.sample1 AS `Sample_users` FROM rollup_states AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'users_hourly' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795647600, 'UTC') AND T.bucket < toDateTime(1795906800, 'UTC') AND (T.bucket >= toDateTime(1795564800, 'UTC') AND T.bucket < toDateTime(1795651200, 'UTC') OR T.bucket >= toDateTime(1795824000, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC')) ) AS S WHERE 1))) AS Size,
       toUInt64(0) AS Total
FROM (
SELECT T.bucket AS bucket, T.uniq1 AS `users`, T.sample1 AS `Sample_users` FROM rollup_states AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'users_all_daily' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795647600, 'UTC') AND T.bucket < toDateTime(1795906800, 'UTC') AND T.bucket NOT IN (toDateTime(1795564800, 'UTC'), toDateTime(1795824000, 'UTC'))
UNION ALL
SELECT T.bucket AS bucket, T.uniq1 AS `users`, T.sample1 AS `Sample_users` FROM rollup_states AS T WHERE T.tenant IN {tenant:Array(String)} AND T.tenant != '' AND T.rollup = 'users_hourly' AND T.expires = '2149-06-06' AND T.bucket >= toDateTime(1795647600, 'UTC') AND T.bucket < toDateTime(1795906800, 'UTC') AND (T.bucket >= toDateTime(1795564800, 'UTC') AND T.bucket < toDateTime(1795651200, 'UTC') OR T.bucket >= toDateTime(1795824000, 'UTC') AND T.bucket < toDateTime(1795910400, 'UTC'))
) AS S
WHERE 1
GROUP BY Start
HAVING count() > 0
-- tenant = Texts(["default"])
-- SETTING max_execution_time = 10
-- SETTING max_rows_to_read = 200000000
-- SETTING read_overflow_mode = throw
-- SETTING max_result_rows = 100001
-- SETTING result_overflow_mode = throw
-- SETTING cancel_http_readonly_queries_on_client_close = 1
