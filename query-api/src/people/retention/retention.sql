SELECT toInt64(Cohort) AS start, arrayConcat([count()], sumForEach(arrayMap(K -> toUInt64(bitTest(Again, Cohort + K)), range(0, 4)))) AS figures
FROM (
  SELECT arrayJoin(bitPositionsToArray(First)) AS Cohort, Again
  FROM (
    SELECT User, groupBitOr(Bits) AS First, groupBitOr(Later) AS Again FROM (
        SELECT bitShiftLeft(toUInt64(1), toUInt64(Period - 1)) AS Bits, toUInt64(0) AS Later, arrayJoin(groupUniqArrayMerge(CAST(toString(S.`users`), 'AggregateFunction(groupUniqArray, UInt64)'))) AS User
        FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.uniq1 AS `users` FROM rollup_states AS T WHERE T.tenant != '' AND T.rollup = 'users_daily' AND T.expires = '2149-06-06') AS S
        WHERE S.tenant IN {tenant:Array(String)} AND S.bucket >= toDateTime(1794787200, 'UTC') AND S.bucket < toDateTime(1795996800, 'UTC') AND S.`event` IN {first:Array(String)} AND S.`event` NOT IN {filter0:Array(String)}
        GROUP BY indexOf({starts:Array(UInt32)}, roundDown(toUnixTimestamp(S.bucket), {starts:Array(UInt32)})) AS Period
        UNION ALL
        SELECT toUInt64(0) AS Bits, bitShiftLeft(toUInt64(1), toUInt64(Period - 1)) AS Later, arrayJoin(groupUniqArrayMerge(CAST(toString(S.`users`), 'AggregateFunction(groupUniqArray, UInt64)'))) AS User
        FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.uniq1 AS `users` FROM rollup_states AS T WHERE T.tenant != '' AND T.rollup = 'users_daily' AND T.expires = '2149-06-06') AS S
        WHERE S.tenant IN {tenant:Array(String)} AND S.bucket >= toDateTime(1794787200, 'UTC') AND S.bucket < toDateTime(1797811200, 'UTC') AND S.`event` IN {again:Array(String)} AND S.`event` NOT IN {filter0:Array(String)}
        GROUP BY indexOf({starts:Array(UInt32)}, roundDown(toUnixTimestamp(S.bucket), {starts:Array(UInt32)})) AS Period
    )
    GROUP BY User
    HAVING First != 0
  )
)
GROUP BY Cohort
-- tenant = Texts(["default"])
-- starts = Moments([1794787200, 1795392000, 1795996800, 1796601600, 1797206400])
-- first = Texts(["signup"])
-- again = Texts(["open", "view"])
-- filter0 = Texts(["x"])
-- SETTING max_execution_time = 10
-- SETTING max_rows_to_read = 1000
-- SETTING read_overflow_mode = throw
-- SETTING max_memory_usage = 2147483648
-- SETTING max_result_rows = 1000
-- SETTING result_overflow_mode = throw
-- SETTING cancel_http_readonly_queries_on_client_close = 1
