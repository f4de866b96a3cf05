"""Apache Superset reads the views. It runs in this process, and the tests use its API in the same way as its pages do.

`e2e/bi/support.py` lists the variables.
"""

import os
import uuid
from pathlib import Path
from urllib.parse import urlparse

import pytest
from support import BI, DSNS, EXPECTED, GOLDEN

URI = DSNS[0].replace("clickhouse://", "clickhousedb://")
SERVER = urlparse(DSNS[0])
# The body that is sent by the dialog with a field for each part of the address.
FORM = {
    "host": SERVER.hostname, "port": SERVER.port, "database": BI, "username": SERVER.username, "password": SERVER.password,
    "encryption": False, "query": {},
}  # fmt: skip
TIMES = ["minute", "quarter_hour", "hour", "day", "week", "month", "client_time", "server_time", "as_of"]
OF_THE_TENANT = {"col": "tenant", "op": "==", "val": "default"}
EVER = "2000-01-01 : 2100-01-01"
# Superset's types of columns.
NUMERIC, STRING, TEMPORAL = 0, 1, 2
WRITES = [
    "INSERT INTO event_daily (day) VALUES ('2026-01-01')",
    "DROP VIEW event_daily",
    "CREATE TABLE mine (a Int64) ENGINE = Memory",
]


class Superset:
    """Superset's API, used by an administrator."""

    def __init__(self, app):
        self.client = app.test_client()
        login = {"username": "admin", "password": "admin", "provider": "db"}
        token = self.client.post("/api/v1/security/login", json=login).json["access_token"]
        self.headers = {"Authorization": f"Bearer {token}"}

    def request(self, method, path, body=None):
        return self.client.open(f"/api/v1/{path}", method=method, json=body, headers=self.headers)

    def asked(self, method, path, body=None):
        """Sends a request that must succeed. Returns the answer."""
        answer = self.request(method, path, body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json

    def refusal(self, method, path, body=None):
        """Sends a request that Superset must refuse. Returns its message, which must be readable for people."""
        answer = self.request(method, path, body)
        assert 400 <= answer.status_code < 600 and "Traceback" not in answer.text, answer.text
        return answer.json["errors"][0]["message"] if "errors" in answer.json else answer.json["message"]


@pytest.fixture(scope="module")
def superset(tmp_path_factory):
    os.environ["SUPERSET_HOME"] = str(tmp_path_factory.mktemp("superset"))
    # Imported only here, because Superset reads its configuration when it is imported.
    import flask_migrate
    from superset.app import create_app

    app = create_app()
    with app.app_context():
        import superset
        from superset.extensions import appbuilder, security_manager

        # Does what `superset db upgrade`, `superset init` and `superset fab create-admin` do.
        flask_migrate.upgrade(str(Path(superset.__file__).with_name("migrations")))
        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        role = security_manager.find_role("Admin")
        assert security_manager.add_user("admin", "A", "Admin", "admin@example.com", role, password="admin")
    return Superset(app)


@pytest.fixture(scope="module")
def database(superset):
    """The id of the connection."""
    body = {"database_name": "Millrace", "sqlalchemy_uri": URI, "expose_in_sqllab": True}
    return superset.asked("POST", "database/", body)["id"]


@pytest.fixture(scope="module")
def dataset(superset, database):
    """The id of the dataset of a view."""
    made = {}

    def of(view):
        if view not in made:
            body = {"database": database, "schema": BI, "table_name": view}
            made[view] = superset.asked("POST", "dataset/", body)["id"]
        return made[view]

    return of


def over(time, grain):
    """The time axis of a chart."""
    return {"columnType": "BASE_AXIS", "expressionType": "SQL", "sqlExpression": time, "label": time, "timeGrain": grain}


def within(time, days):
    return {"col": time, "op": "TEMPORAL_RANGE", "val": days}


def measure(expression):
    return {"expressionType": "SQL", "sqlExpression": expression, "label": expression}


def chart_body(dataset, **query):
    defaults = {"columns": [], "filters": [], "metrics": [], "row_limit": 10000}
    return {"datasource": {"id": dataset, "type": "table"}, "queries": [defaults | query], "result_type": "full", "force": True}


def chart(superset, dataset, **query):
    """The rows of a chart, and the query that Superset generated for it."""
    (found,) = superset.asked("POST", "chart/data", chart_body(dataset, **query))["result"]
    return found


def sql_body(database, query, **more):
    names = {"database_id": database, "schema": BI, "client_id": uuid.uuid4().hex[:10]}
    return names | {"sql": query, "queryLimit": 1000, "runAsync": False} | more


def sql(superset, database, query, **more):
    return superset.asked("POST", "sqllab/execute/", sql_body(database, query, **more))


def refused_sql(superset, database, query):
    return superset.refusal("POST", "sqllab/execute/", sql_body(database, query))


def test_clickhouse_is_offered(superset):
    offered = superset.asked("GET", "database/available/")["databases"]
    assert any(one["name"] == "ClickHouse" and one["engine"] == "clickhousedb" for one in offered)


@pytest.mark.parametrize("how", ["uri", "form"])
def test_the_test_of_a_connection_succeeds(superset, how):
    form = {"configuration_method": "dynamic_form", "engine": "clickhousedb", "driver": "connect", "parameters": FORM}
    ways = {"uri": {"sqlalchemy_uri": URI}, "form": form}
    superset.asked("POST", "database/test_connection/", {"database_name": "Millrace"} | ways[how])


def test_a_wrong_password_is_named(superset):
    wrong = {"database_name": "Millrace", "sqlalchemy_uri": URI.replace(f":{SERVER.password}@", ":wrong@")}
    assert "Authentication failed" in superset.refusal("POST", "database/test_connection/", wrong)


def test_the_schema_its_views_and_their_columns_are_listed(superset, database):
    assert BI in superset.asked("GET", f"database/{database}/schemas/")["result"]
    tables = superset.asked("GET", f"database/{database}/tables/?q=(schema_name:{BI})")["result"]
    assert {table["value"] for table in tables} == set(EXPECTED)
    listed = []
    for view in EXPECTED:
        of_view = superset.asked("GET", f"database/{database}/table_metadata/?name={view}&schema={BI}")
        assert of_view["comment"] and all(column["comment"] for column in of_view["columns"])
        listed += [f"{view}.{column['name']} {column['longType']}" for column in of_view["columns"]]
    assert set(GOLDEN) <= set(listed)


def test_a_dataset_of_each_view_has_its_times_its_numbers_and_their_descriptions(superset, dataset):
    for view in EXPECTED:
        columns = superset.asked("GET", f"dataset/{dataset(view)}")["result"]["columns"]
        assert all(column["description"] for column in columns)
        kinds = {column["column_name"]: (column["is_dttm"], column["type"]) for column in columns}
        assert all(kinds[time][0] for time in TIMES if time in kinds)
        for column in (one for one in GOLDEN if one.startswith(f"{view}.")):
            name, kind = column.removeprefix(f"{view}.").split(" ", 1)
            assert kinds[name] == (kind.startswith("Date"), kind.upper())


@pytest.mark.parametrize("grain", ["PT1H", "P1D", "P1W", "P1M"])
@pytest.mark.parametrize(
    ("view", "time", "metric"),
    [
        ("event_daily", "day", "sum(events)"),
        ("event_hourly", "hour", "sum(value)"),
        ("event_minutely", "minute", "sum(events)"),
        ("events_recent", "client_time", "count()"),
    ],
)
def test_the_points_of_a_chart_add_up_to_the_sum_of_the_view(superset, dataset, view, time, metric, grain):
    columns, filters = [over(time, grain), "event"], [OF_THE_TENANT, within(time, EVER)]
    found = chart(superset, dataset(view), columns=columns, metrics=[measure(metric)], filters=filters)
    assert sum(row[metric] for row in found["data"]) == EXPECTED[view][metric]
    assert len({(row[time], row["event"]) for row in found["data"]}) == len(found["data"]) > 1
    assert found["coltypes"] == [TEMPORAL, STRING, NUMERIC]
    assert f"`{time}` >= " in found["query"] and "`tenant` = 'default'" in found["query"]


def test_a_chart_of_one_event_counts_only_that_event(superset, dataset):
    votes = {"col": "event", "op": "IN", "val": ["vote"]}
    asked = {"columns": [over("day", "P1W")], "metrics": [measure("sum(events)")], "filters": [OF_THE_TENANT, votes]}
    found = chart(superset, dataset("event_daily"), **asked)
    assert sum(row["sum(events)"] for row in found["data"]) == EXPECTED["polls"]["sum(votes)"]


def test_the_row_limit_of_a_chart_is_part_of_its_query(superset, dataset):
    events = measure("sum(events)")
    asked = {"columns": ["event", "country"], "metrics": [events], "orderby": [[events, False]], "row_limit": 2}
    found = chart(superset, dataset("event_daily"), **asked)
    assert len(found["data"]) == 2 and "LIMIT 2" in found["query"]
    largest, second = (row["sum(events)"] for row in found["data"])
    assert largest >= second > 0


# docs/bi.md gives the reason: with the column itself, ClickHouse compares the range with the starts of the buckets.
@pytest.mark.parametrize("grain", ["P1W", "P1M", "P1Y"])
@pytest.mark.parametrize(
    ("view", "column", "metric"), [("event_daily", "day", "sum(events)"), ("event_hourly", "hour", "sum(value)")]
)
def test_a_calculated_column_counts_a_range_that_begins_within_a_bucket(
    superset, database, dataset, view, column, metric, grain
):
    add_time(superset, dataset(view), column)
    ends = f"toString(toDate(min({column}))) AS first, toString(toDate(max({column})) + 1) AS after"
    (day,) = sql(superset, database, f"SELECT {ends} FROM {view}")["data"]
    days = [within("time", f"{day['first']} : {day['after']}")]
    found = chart(superset, dataset(view), columns=[over("time", grain)], metrics=[measure(metric)], filters=days)
    assert sum(row[metric] for row in found["data"]) == EXPECTED[view][metric]
    assert "AS `time`" in found["query"] and f"{column} >= toDateTime('{day['first']} 00:00:00')" in found["query"]


def add_time(superset, dataset, column):
    """Adds the calculated column `time` to a dataset that lacks it."""
    columns = superset.asked("GET", f"dataset/{dataset}")["result"]["columns"]
    if all(one["column_name"] != "time" for one in columns):
        kept = [{"id": one["id"], "column_name": one["column_name"]} for one in columns]
        time = {"column_name": "time", "expression": column, "is_dttm": True, "type": "DATETIME"}
        superset.asked("PUT", f"dataset/{dataset}", {"columns": [*kept, time]})


def test_with_the_column_itself_the_range_is_compared_with_buckets(superset, dataset):
    asked = {"columns": [over("day", "P1W")], "metrics": [measure("sum(events)")], "filters": [within("day", EVER)]}
    found = chart(superset, dataset("event_daily"), **asked)
    assert "toMonday(toDateTime(`day`)) AS `day`" in found["query"], "then docs/bi.md need not warn of it"


def test_sql_lab_adds_its_limit_to_a_query(superset, database):
    found = sql(superset, database, "SELECT day, event, events FROM event_daily", queryLimit=3)
    # Superset asks for one row more than the limit, to see whether there are more.
    assert len(found["data"]) == 3 and "LIMIT 4" in found["query"]["executedSql"]
    assert [column["type"] for column in found["columns"]] == ["Date", "String", "Int64"]
    assert [column["is_dttm"] for column in found["columns"]] == [True, False, False]


def test_sql_lab_refuses_a_statement_that_writes(superset, database):
    for statement in WRITES:
        assert "does not allow for DDL/DML" in refused_sql(superset, database, statement)


def test_the_server_refuses_a_statement_that_writes_where_superset_permits_it(superset):
    login = {"database_name": "permitted", "sqlalchemy_uri": URI, "expose_in_sqllab": True, "allow_dml": True}
    permitted = superset.asked("POST", "database/", login)["id"]
    for statement in WRITES:
        assert "Not enough privileges" in refused_sql(superset, permitted, statement)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT number FROM numbers(1000) SETTINGS max_result_rows = 100", "Limit for result exceeded, max rows: 100"),
        ("SELECT max(sipHash64(number)) FROM numbers(1000000000000) SETTINGS max_execution_time = 1", "Timeout exceeded"),
        ("SELECT length(groupArray(toString(number))) FROM numbers(100000000)", "memory limit exceeded"),
    ],
    ids=["rows", "time", "memory"],
)
def test_sql_lab_shows_which_limit_a_query_met(superset, database, query, says):
    assert says in refused_sql(superset, database, query)


def test_a_chart_shows_which_limit_its_query_met(superset, dataset):
    large = "length(groupArray(repeat(toString(arrayJoin(range(3000))), 1000000)))"
    metric = {"expressionType": "SQL", "sqlExpression": large, "label": "large"}
    body = chart_body(dataset("event_daily"), metrics=[metric])
    assert "memory limit exceeded" in superset.refusal("POST", "chart/data", body)
