"""Attempts to get out of the views. Each is refused, or is listed at the end with the number of ClickHouse's issue.

One user makes all attempts; `test_bi` checks that both users have the same rights. Some attempts list other codes than
that for missing rights, because ClickHouse finds another error before it checks rights. Nothing is read in either case.
"""

import pytest

from support import ACCESS_DENIED, BI, DEFINERS, READONLY, SETTING_CONSTRAINT_VIOLATION, TABLES, refused, rows

# Error codes of ClickHouse for objects that do not exist, and for arguments that do not fit.
BAD_ARGUMENTS, TYPE_MISMATCH, UNKNOWN_IDENTIFIER, NOT_FOUND = 36, 43, 47, 60
NO_CLUSTER, NO_TABLES_TO_MERGE, NO_PROJECTION, NO_OUTFILE = 701, 636, 582, 358
NO_IMPERSONATION, NO_SYSTEM_QUERY, NO_DATABASE = 344, 1, 81


@pytest.mark.parametrize(
    "function",
    [
        "file('/etc/passwd', 'LineAsString')",
        "filesystem('/etc')",
        "url('http://127.0.0.1:1/', 'CSV', 'a String')",
        f"remote('127.0.0.1', {TABLES}.events)",
        f"remoteSecure('127.0.0.1', {TABLES}.events)",
        f"remote('127.0.0.1', view(SELECT * FROM {TABLES}.events))",
        "s3('http://127.0.0.1:1/bucket/key.csv', 'CSV', 'a String')",
        "gcs('http://127.0.0.1:1/bucket/key.csv', 'CSV', 'a String')",
        "azureBlobStorage('http://127.0.0.1:1/', 'c', 'p', 'a', 'k')",
        "hdfs('hdfs://127.0.0.1:1/a', 'CSV', 'a String')",
        "iceberg('http://127.0.0.1:1/bucket/')",
        "deltaLake('http://127.0.0.1:1/bucket/')",
        "executable('id', 'CSV', 'a String')",
        "mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
        "postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
        "mongodb('127.0.0.1:1', 'd', 't', 'u', 'p', 'a String')",
        "redis('127.0.0.1:1', 'k', 'k String')",
        "sqlite('/tmp/x', 't')",
        "jdbc('jdbc:x', 's', 't')",
        "odbc('DSN=x', 's', 't')",
        "dictionary('d')",
        f"view(SELECT * FROM {TABLES}.events)",
        f"loop({TABLES}.events)",
        f"mergeTreeIndex({TABLES}, events)",
        f"mergeTreeAnalyzeIndexes({TABLES}, events)",
    ],
)
def test_no_table_function_reaches_anything(jdbc, function):
    assert refused(jdbc, f"SELECT * FROM {function}") == ACCESS_DENIED


@pytest.mark.parametrize(
    ("function", "code"),
    [
        (f"cluster('default', {TABLES}.events)", NO_CLUSTER),
        (f"clusterAllReplicas('default', {TABLES}.events)", NO_CLUSTER),
        ("urlCluster('default', 'http://127.0.0.1:1/', 'CSV', 'a String')", NO_CLUSTER),
        ("fileCluster('default', '/etc/passwd', 'LineAsString')", NO_CLUSTER),
        # ClickHouse considers only tables that the user may read.
        (f"merge('{TABLES}', '^events$')", NO_TABLES_TO_MERGE),
        ("merge(REGEXP('.*'), '^events$')", NO_TABLES_TO_MERGE),
        (f"mergeTreeProjection({TABLES}, events, p)", NO_PROJECTION),
        ("prometheusQuery('x', 'y', 'z', now())", NO_DATABASE),
    ],
)
def test_a_table_function_finds_nothing(jdbc, function, code):
    assert refused(jdbc, f"SELECT * FROM {function}") in (ACCESS_DENIED, code)


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT (SELECT count() FROM {TABLES}.progress)",
        f"WITH (SELECT max(as_of) FROM {TABLES}.progress) AS x SELECT x",
        f"SELECT * FROM event_daily WHERE event IN (SELECT event FROM {TABLES}.events)",
        f"SELECT * FROM event_daily WHERE event IN {TABLES}.events",
        f"SELECT * FROM event_daily ANY LEFT JOIN {TABLES}.events USING event",
        f"SELECT * FROM {TABLES}.events UNION ALL SELECT * FROM {TABLES}.events",
        f"SELECT hasColumnInTable('{TABLES}', 'events', 'place')",
        "SELECT addressToLine(1)",
        "SELECT demangle('x')",
        f"EXPLAIN SELECT * FROM {TABLES}.events",
        f"EXPLAIN PIPELINE SELECT * FROM {TABLES}.events",
        f"EXPLAIN ESTIMATE SELECT * FROM {TABLES}.events",
        f"EXPLAIN PLAN SELECT (SELECT max(as_of) FROM {TABLES}.progress)",
        f"EXPLAIN QUERY TREE SELECT (SELECT max(as_of) FROM {TABLES}.progress)",
        f"EXPLAIN SYNTAX run_query_tree_passes = 1 SELECT (SELECT max(as_of) FROM {TABLES}.progress)",
        f"SELECT * FROM (EXPLAIN QUERY TREE SELECT * FROM {TABLES}.events)",
        f"DESCRIBE TABLE {TABLES}.events",
        f"SHOW CREATE TABLE {TABLES}.events",
        f"SHOW INDEX FROM {TABLES}.events",
        f"EXISTS {TABLES}.events",
        f"CHECK TABLE {TABLES}.events",
        f"USE {TABLES}",
        f"SHOW GRANTS FOR {DEFINERS[0]}",
        f"SHOW CREATE USER {DEFINERS[0]}",
        "SHOW USERS",
        "SHOW ACCESS",
        "SHOW PROCESSLIST",
        "KILL QUERY WHERE 1",
        "KILL QUERY WHERE user = 'default' SYNC",
        "KILL MUTATION WHERE 1",
        "SYSTEM FLUSH LOGS",
        "SYSTEM SHUTDOWN",
        f"BACKUP DATABASE {BI} TO File('/tmp/b')",
        f"RESTORE DATABASE {BI} FROM File('/tmp/b')",
        "CREATE FUNCTION f AS x -> x",
        "CREATE NAMED COLLECTION c AS a = 1",
        f"CREATE VIEW v DEFINER = {DEFINERS[0]} SQL SECURITY DEFINER AS SELECT * FROM {TABLES}.events",
        f"CREATE DICTIONARY d (a UInt64) PRIMARY KEY a SOURCE(CLICKHOUSE(TABLE 'events' DB '{TABLES}')) "
        "LAYOUT(FLAT()) LIFETIME(1)",
        "ALTER TABLE event_daily MODIFY QUERY SELECT 1",
        "ALTER TABLE event_daily MODIFY SQL SECURITY INVOKER",
        "ALTER USER bi_jdbc SETTINGS readonly = 0",
        f"OPTIMIZE TABLE {TABLES}.events",
        f"UNDROP TABLE {TABLES}.x",
        "DETACH TABLE event_daily",
        "RENAME TABLE event_daily TO x",
        "EXCHANGE TABLES event_daily AND event_hourly",
        f"DELETE FROM {TABLES}.events WHERE 1",
        f"UPDATE {TABLES}.events SET event = 'x' WHERE 1",
        "INSERT INTO FUNCTION file('x.csv') SELECT 1",
        "INSERT INTO FUNCTION url('http://127.0.0.1:1/', 'CSV', 'a UInt8') SELECT 1",
        f"SELECT * FROM {TABLES}.events PARALLEL WITH SELECT 1",
    ],
)
def test_no_statement_reads_or_changes_anything_else(jdbc, query):
    assert refused(jdbc, query) in (ACCESS_DENIED, READONLY)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT dictGet('d', 'a', 1)", BAD_ARGUMENTS),
        (f"SELECT joinGet('{TABLES}.events', 'event', 'a')", TYPE_MISMATCH),
        ("SELECT place FROM events_recent", UNKNOWN_IDENTIFIER),
        ("SELECT _part FROM events_recent", UNKNOWN_IDENTIFIER),
        (f"SELECT * FROM {TABLES}.`.inner_id.x`", NOT_FOUND),
        ("SELECT 1 INTO OUTFILE '/tmp/out.csv'", NO_OUTFILE),
        ("EXECUTE AS default SELECT 1", NO_IMPERSONATION),
        # The library that runs the tests does not have this statement.
        ("SYSTEM RELOAD CONFIG", NO_SYSTEM_QUERY),
    ],
)
def test_what_a_statement_names_is_not_there(jdbc, query, code):
    assert refused(jdbc, query) in (ACCESS_DENIED, code)


@pytest.mark.parametrize(
    "table",
    [
        "clusters",
        "dictionaries",
        "disks",
        "errors",
        "grants",
        "merges",
        "metrics",
        "parts_columns",
        "processes",
        "quotas_usage",
        "row_policies",
        "server_settings",
        "users",
        "view_refreshes",
    ],
)
def test_no_table_of_the_server_is_read(jdbc, table):
    assert refused(jdbc, f"SELECT * FROM system.{table}") == ACCESS_DENIED


@pytest.mark.parametrize(
    "query",
    [
        f"SHOW TABLES FROM {TABLES}",
        f"SHOW COLUMNS FROM {TABLES}.events",
        f"SELECT name FROM system.tables WHERE database = '{TABLES}'",
        f"SELECT name FROM system.columns WHERE database = '{TABLES}'",
        f"SELECT column_name FROM information_schema.columns WHERE table_schema = '{TABLES}'",
        # Reads only its ELSE, which is permitted.
        f"SELECT * FROM viewIfPermitted(SELECT * FROM {TABLES}.events ELSE null('a UInt8'))",
    ],
)
def test_nothing_else_is_listed(jdbc, query):
    assert rows(jdbc, query) == []


@pytest.mark.parametrize(
    "setting",
    [
        f"additional_table_filters = {{'{TABLES}.events': '1'}}",
        f"additional_table_filters = {{'{BI}.events_recent': '1'}}",
        "additional_result_filter = '1'",
        "max_threads = 64",
        "enable_analyzer = 0",
        "readonly = 0",
        "use_query_cache = 1",
        "log_queries = 0",
    ],
)
def test_no_setting_reaches_beneath_a_view(jdbc, setting):
    assert refused(jdbc, f"SELECT count() FROM events_recent SETTINGS {setting}") in (
        READONLY,
        SETTING_CONSTRAINT_VIOLATION,
    )


@pytest.mark.parametrize("view", ["event_daily", "events_recent", "users_daily"])
@pytest.mark.parametrize(
    "oracle",
    ["throwIf(tenant = '')", "intDiv(1, toUInt8(tenant != '')) < 0", "toUInt64(if(tenant = '', 'marker', '0')) > 0"],
)
def test_a_marker_row_is_shown_by_no_error(jdbc, view, oracle):
    assert rows(jdbc, f"SELECT count() FROM {view} WHERE {oracle}") == [(0,)]


# The library that runs the tests, 26.7.2.1, permits the following attempts. The tests expect these faults, so that they
# fail with a library that has the fixes. `docs/bi.md` lists the servers that have all fixes. `test_bi` tests two more
# faults: `file()` as a value (98115), and a filter inside a view by a setting inside a subquery (118063).


@pytest.mark.parametrize(
    ("setting", "value"), [("max_memory_usage", 0), ("max_execution_time", 0), ("readonly", 0), ("max_threads", 64)]
)
def test_a_setting_inside_a_subquery_is_not_checked_in_the_local_library_only(jdbc, setting, value):
    # ClickHouse 116028; fixed in 26.6.5.113, 26.7.7.84 and 26.8.3.74.
    query = f"SELECT * FROM (SELECT toString(getSetting('{setting}')) SETTINGS {setting} = {value})"
    assert rows(jdbc, query) == [(str(value),)]


def test_rights_are_checked_whatever_a_subquery_sets(jdbc):
    for query in ("SELECT name FROM system.users", f"SELECT event FROM {TABLES}.events"):
        assert refused(jdbc, f"SELECT * FROM ({query} SETTINGS readonly = 0)") == ACCESS_DENIED
    assert refused(jdbc, "SELECT * FROM (SELECT 1 SETTINGS readonly = 0) INTO OUTFILE '/tmp/out.csv'") == NO_OUTFILE


def test_columns_of_a_table_are_explained_in_the_local_library_only(jdbc):
    # ClickHouse 78938, fixed by its pull request 117979. The plan shows names and types of columns, but no rows.
    plan = rows(jdbc, f"EXPLAIN QUERY TREE SELECT * FROM {TABLES}.ledger")
    assert any("record_id UUID" in line for (line,) in plan)
