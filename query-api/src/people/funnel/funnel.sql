SELECT toInt64(0) AS start, [toUInt64(sum(S.`events`))] AS figures
FROM (SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `event`, T.dim2 AS `country`, T.dim3 AS `device_os`, T.rows AS `events`, T.sum1 AS `value` FROM rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'event_hourly' AND T.expires = '2149-06-06') AS S
WHERE S.tenant IN {tenant:Array(String)} AND S.bucket >= toDateTime(1795773600, 'UTC') AND S.bucket < toDateTime(1795878000, 'UTC') AND S.`event` IN {events:Array(String)}
-- tenant = Texts(["default"])
-- events = Texts(["view", "login", "signup", "buy"])
SELECT toInt64(0) AS start, sumForEach(arrayMap(K -> toUInt64(Level >= K), range(1, 4))) AS figures
FROM (
  SELECT windowFunnel(7200000)(toUInt64(toUnixTimestamp64Milli(E.client_time)), E.event IN {step0:Array(String)}, E.event IN {step1:Array(String)}, E.event IN {step2:Array(String)}) AS Level
  FROM events AS E
  WHERE E.tenant IN {tenant:Array(String)} AND E.client_time >= fromUnixTimestamp64Milli(1795775400000, 'UTC') AND E.client_time < fromUnixTimestamp64Milli(1795876200000, 'UTC') AND E.event IN {events:Array(String)} AND (E.user_id != '' OR E.device_id != '') AND E.country IN {filter0:Array(String)}
  GROUP BY if(E.user_id != '', E.user_id, E.device_id)
)
-- tenant = Texts(["default"])
-- events = Texts(["view", "login", "signup", "buy"])
-- step0 = Texts(["view"])
-- step1 = Texts(["login", "signup"])
-- step2 = Texts(["buy"])
-- filter0 = Texts(["DE"])
