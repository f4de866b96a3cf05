"""The contents of the views, and the rights of their readers, who may only read them. `support` lists the variables."""

import json
from urllib.parse import urlparse

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from support import (
    ACCESS_DENIED,
    BI,
    DEFINERS,
    DSNS,
    EXPECTED,
    GOLDEN,
    READONLY,
    SETTING_CONSTRAINT_VIOLATION,
    TABLES,
    UNKNOWN_TABLE,
    WITHOUT_TENANTS,
    refused,
    rows,
)


def test_every_view_that_is_expected_is_listed_and_nothing_else_is(client):
    assert set(client.command("SHOW TABLES").split()) == set(EXPECTED)
    seen = {database for (database,) in rows(client, "SELECT database FROM system.tables")}
    # Other tests have their own views on the same server.
    others = {name for name in seen if not name.startswith("bi_")}
    assert others <= {"system", "information_schema", "INFORMATION_SCHEMA"}


def test_every_view_and_every_column_says_what_it_is(client):
    described = rows(client, f"SELECT name, comment FROM system.tables WHERE database = '{BI}'")
    described += rows(
        client, f"SELECT concat(table, '.', name), comment FROM system.columns WHERE database = '{BI}'"
    )
    assert len(described) > len(EXPECTED)
    assert [name for name, comment in described if not comment] == []


def test_columns_have_plain_types_and_those_of_dashboards_are_there(client):
    columns = rows(client, f"SELECT table, name, type FROM system.columns WHERE database = '{BI}'")
    plain = ("String", "Int64", "Float64", "Date", "DateTime('UTC')", "DateTime64(3, 'UTC')")
    assert [column for column in columns if column[2] not in plain] == []
    assert set(GOLDEN) <= {f"{table}.{name} {kind}" for table, name, kind in columns}


@pytest.mark.parametrize("view", EXPECTED)
def test_a_view_returns_the_types_that_it_declares(client, view):
    declared = rows(client, f"SELECT name, type FROM system.columns WHERE database = '{BI}' AND table = '{view}'")
    returned = client.query(f"SELECT * FROM `{view}` LIMIT 1")
    assert [(name, kind.name) for name, kind in zip(returned.column_names, returned.column_types)] == declared


# If a view computed a text as another type, ClickHouse would look for a part of it that is not there (pull request 113057).
@pytest.mark.parametrize("view", EXPECTED)
def test_every_text_can_be_compared_with_nothing(client, view):
    texts = f"database = '{BI}' AND table = '{view}' AND type = 'String'"
    names = rows(client, f"SELECT name FROM system.columns WHERE {texts}")
    if names:
        is_there = " OR ".join(f"`{name}` != ''" for (name,) in names)
        rows(client, f"SELECT count() FROM `{view}` WHERE {is_there}")


def test_a_bucket_is_complete_when_all_before_its_end_is_counted(client):
    as_of = "(SELECT as_of FROM freshness)"
    for view, end in [("event_hourly", "hour + INTERVAL 1 HOUR"), ("users_all_monthly", "month + INTERVAL 1 MONTH")]:
        # One query reads both sides, so that as_of is the same.
        wrong = f"SELECT countIf(complete != ({as_of} >= {end})) FROM {view}"
        assert rows(client, wrong) == [(0,)], view


def test_measures_that_cannot_be_added_say_so(client):
    named = "name IN ('users', 'voters', 'sessions')"
    measures = rows(client, f"SELECT comment FROM system.columns WHERE database = '{BI}' AND {named}")
    assert len(measures) >= 4
    assert all(comment.startswith("NOT additive: distinct") for (comment,) in measures)


@pytest.mark.parametrize("view", EXPECTED)
def test_a_view_holds_what_was_accepted_and_no_marker(client, view):
    assert rows(client, f"SELECT * FROM `{view}` LIMIT 5"), "it has rows, and each can be read"
    for measure, total in EXPECTED[view].items():
        assert rows(client, f"SELECT {measure} FROM `{view}`") == [(total,)], measure
    if view not in WITHOUT_TENANTS:
        assert rows(client, f"SELECT DISTINCT tenant FROM `{view}`") == [("default",)]


def test_props_are_json_text(client):
    texts = [text for (text,) in rows(client, "SELECT props FROM events_recent WHERE event = 'vote'")]
    assert texts and all(json.loads(text)["poll"] == "lunch" for text in texts)


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT count() FROM {TABLES}.events",
        f"SELECT count() FROM {TABLES}.rollup_sums",
        f"SELECT count() FROM {TABLES}.schema_migrations",
        f"SELECT count() FROM view(SELECT * FROM {TABLES}.ledger)",
        f"SELECT count() FROM remote('127.0.0.1', {TABLES}.events)",
        "SELECT count() FROM file('/etc/hostname', 'CSV', 'a String')",
        "SELECT count() FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
        "SELECT count() FROM system.processes",
        "SELECT count() FROM system.users",
    ],
)
def test_nothing_but_the_views_can_be_read(client, query):
    assert refused(client, query) == ACCESS_DENIED


def test_the_queries_of_others_cannot_be_read(client):
    # The table exists only after something was logged.
    assert refused(client, "SELECT count() FROM system.query_log") in (ACCESS_DENIED, UNKNOWN_TABLE)


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO event_daily SELECT * FROM event_daily",
        f"INSERT INTO {TABLES}.progress (g) VALUES (1)",
        "CREATE TABLE mine (n UInt8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE mine (n UInt8)",
        "CREATE OR REPLACE VIEW event_daily AS SELECT 1",
        "DROP VIEW event_daily",
        f"DROP TABLE {TABLES}.events",
        f"TRUNCATE TABLE {TABLES}.events",
        f"ALTER TABLE {TABLES}.events DELETE WHERE 1",
        f"SYSTEM STOP MERGES {TABLES}.events",
        "CREATE USER mine",
        "GRANT SELECT ON *.* TO bi_reader",
    ],
)
def test_nothing_can_be_written_or_changed(client, query):
    assert refused(client, query) in (ACCESS_DENIED, READONLY)


@pytest.mark.parametrize(
    "setting",
    [
        "max_execution_time = 0",
        "max_execution_time = 3600",
        "max_memory_usage = 0",
        "max_result_rows = 0",
        "readonly = 0",
        "readonly = 2",
        # With the old analyzer, a predicate ran before the view's own filter.
        "enable_analyzer = 0",
        # The filter would run inside the view, with the rights of its definer.
        f"additional_table_filters = {{'{TABLES}.rollup_sums': '(SELECT count() FROM {TABLES}.ledger) > 0'}}",
    ],
)
def test_no_limit_can_be_lifted(client, setting):
    assert refused(client, f"SELECT 1 SETTINGS {setting}") in (READONLY, SETTING_CONSTRAINT_VIOLATION)


@pytest.mark.parametrize(
    "setting",
    [
        "max_execution_time = 5",
        "max_result_rows = 100",
        "result_overflow_mode = 'break'",
        "read_overflow_mode = 'break'",
        "max_block_size = 1000",
        "session_timezone = 'Europe/Berlin'",
        "join_use_nulls = 1",
        "cast_keep_nullable = 1",
        "output_format_json_quote_64bit_integers = 1",
    ],
)
def test_what_drivers_and_tools_send_is_taken(client, setting):
    assert rows(client, f"SELECT 1 SETTINGS {setting}") == [(1,)]


def test_tools_find_the_views_in_the_information_schema(client):
    found = rows(client, f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{BI}'")
    assert {name for (name,) in found} == set(EXPECTED)
    assert rows(client, "SELECT count() FROM system.parts") == [(0,)], "no parts of tables without a grant"


def test_a_preview_is_not_refused_for_the_size_of_its_view(client):
    assert rows(client, "SELECT value FROM system.settings WHERE name = 'max_rows_to_read'") == [("0",)]


# A predicate inside a view can read only what the definer of the views may read.
@pytest.mark.parametrize(
    "beneath",
    [
        "count() FROM system.users",
        "count() FROM system.query_log",
        "count() FROM {TABLES}.configs",
        "count() FROM {TABLES}.progress",
        "max(ko) FROM {TABLES}.ledger",
        "sum(length(ids)) FROM {TABLES}.ledger",
    ],
)
def test_a_filter_beneath_a_view_reaches_nothing_that_no_view_shows(client, beneath):
    reached = f"(SELECT {beneath.format(TABLES=TABLES)}) >= 0"
    filters = f"additional_table_filters = {{'{TABLES}.rollup_sums': '{reached}'}}"
    # Inside a subquery, settings are not checked before 26.6.5.113, 26.7.7.84 and 26.8.3.74 (ClickHouse 116028).
    code = refused(client, f"SELECT count() FROM (SELECT * FROM event_hourly SETTINGS {filters})")
    assert code in (ACCESS_DENIED, READONLY, SETTING_CONSTRAINT_VIOLATION, UNKNOWN_TABLE)


# Before 26.6.5.113, 26.7.7.84 and 26.8.3.74 (ClickHouse 118063), such a predicate also reads other columns of a table
# that a view shows, without a grant. The test expects this fault, so that it fails with a library that has the fix.
# None of these columns has data of a client.
@pytest.mark.parametrize("column", ["place", "cfg", "hwm", "kp"])
def test_a_filter_beneath_a_view_reaches_columns_of_its_table_in_the_local_library_only(client, column):
    filters = f"additional_table_filters = {{'{TABLES}.events': '{column} >= 0'}}"
    assert rows(client, f"SELECT count() > 0 FROM (SELECT * FROM events_recent SETTINGS {filters})") == [(True,)]


# The local library's `file()` reads any file of the user that runs it, without a grant (ClickHouse 98115). The test
# expects this fault, so that it fails with a library that has the fix. Servers since 26.2.4.13 refuse it.
def test_a_file_of_the_server_can_be_read_in_the_local_library_only(client):
    assert "root:" in client.command("SELECT file('/etc/passwd')")


@pytest.mark.parametrize("definer", DEFINERS)
def test_a_definer_of_the_views_cannot_log_in(definer):
    at = urlparse(DSNS[0])
    with pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED|Authentication failed"):
        clickhouse_connect.get_client(host=at.hostname, port=at.port, username=definer, password="")
