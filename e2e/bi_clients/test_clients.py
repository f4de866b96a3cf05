"""The clients that need packages or tools of their own. `e2e/bi/support.py` lists the variables. In addition:

    BI_NATIVE      host:port of the native protocol
    CLICKHOUSE     the HTTP address of the server, whose administrator needs no password
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path
from urllib.parse import urlparse

import clickhouse_connect
import clickhouse_driver
import ibis
import polars
import pyarrow
import pytest
from support import BI, DSNS, EXPECTED, GOLDEN, code_of

HERE = Path(__file__).parent
SERVER = urlparse(DSNS[0])
NATIVE = urlparse(f"//{os.environ['BI_NATIVE']}")
MANY = (
    "SELECT tenant, event, client_time, number AS row FROM (SELECT * FROM events_recent LIMIT 100) AS e "
    "CROSS JOIN (SELECT number FROM numbers(9000)) AS n"
)
TOO_MANY = "SELECT number FROM numbers(1000001)"
WRAPPED = f"SELECT * FROM (SELECT * FROM {BI}.event_daily) AS t LIMIT 3"


@pytest.fixture
def http():
    with clickhouse_connect.get_client(dsn=DSNS[0]) as client:
        yield client


def native(**more):
    login = {"user": SERVER.username, "password": SERVER.password, "database": BI}
    return clickhouse_driver.Client(NATIVE.hostname, port=NATIVE.port, **login, **more)


def test_native_lists_views_and_columns_with_their_comments():
    client = native()
    assert (BI,) in client.execute("SHOW DATABASES")
    assert {name for (name,) in client.execute("SHOW TABLES")} == set(EXPECTED)
    columns = client.execute("DESCRIBE TABLE event_daily")
    assert [f"event_daily.{name} {kind}" for name, kind, *_ in columns] == of_golden("event_daily")
    assert all(comment for *_, comment, _, _ in columns)


def of_golden(view):
    return [column for column in GOLDEN if column.startswith(f"{view}.")]


def test_native_reads_types_wrapped_and_in_parallel():
    day, events = native().execute("SELECT day, events FROM event_daily LIMIT 1")[0]
    assert (type(day), type(events)) == (date, int)
    assert type(native().execute("SELECT hour FROM event_hourly LIMIT 1")[0][0]) is datetime
    assert 0 < len(native().execute(WRAPPED)) <= 3
    with ThreadPoolExecutor(max_workers=8) as pool:
        counts = pool.map(lambda view: native().execute(f"SELECT count() FROM `{view}`")[0][0], sorted(EXPECTED))
    assert all(count > 0 for count in counts)


def test_native_streams_and_names_a_limit():
    assert sum(1 for _ in native().execute_iter(MANY)) == 900_000
    with pytest.raises(clickhouse_driver.errors.ServerException) as error:
        native().execute(TOO_MANY)
    assert error.value.code == 396 and "Limit for result exceeded" in str(error.value)


def test_pandas_reads_types_and_streams(http):
    frame = http.query_df("SELECT day, event, events FROM event_daily")
    assert frame["events"].dtype == "int64" and frame["events"].sum() == http.command("SELECT sum(events) FROM event_daily")
    assert str(frame["day"].dtype).startswith("datetime64")
    with http.query_df_stream(MANY) as stream:
        assert sum(len(part) for part in stream) == 900_000
    with pytest.raises(clickhouse_connect.driver.exceptions.DatabaseError) as error:
        http.query_df(TOO_MANY)
    assert code_of(error.value) == 396


def test_arrow_and_polars_read_types_and_stream(http):
    table = http.query_arrow("SELECT event, events, hour FROM event_hourly", use_strings=True)
    assert table.schema.field("events").type == pyarrow.int64()
    assert table.schema.field("event").type in (pyarrow.string(), pyarrow.large_string())
    frame = polars.from_arrow(table)
    assert frame["events"].sum() == http.command("SELECT sum(events) FROM event_hourly")
    with http.query_arrow_stream(MANY) as stream:
        assert sum(part.num_rows for part in stream) == 900_000


def test_ibis_lists_views_and_pushes_its_queries_down():
    con = ibis.clickhouse.connect(
        host=SERVER.hostname, port=SERVER.port, user=SERVER.username, password=SERVER.password, database=BI
    )
    assert set(con.list_tables()) == set(EXPECTED)
    view = con.table("event_daily")
    names = [column.split(" ")[0].split(".")[1] for column in of_golden("event_daily")]
    assert list(view.columns) == names and str(view.schema()["events"]).lower().endswith("int64")
    total = view.group_by("event").aggregate(n=view.events.sum()).order_by("event").limit(5).execute()
    assert total["n"].min() > 0


def test_dbt_builds_a_model_on_the_views(tmp_path):
    server = urlparse(os.environ["CLICKHOUSE"])
    profile = {"type": "clickhouse", "schema": f"{BI}_models", "host": server.hostname, "port": server.port, "user": "default"}
    files = {
        "dbt_project.yml": {"name": "on_bi", "version": "1.0", "profile": "p", "models": {"+materialized": "table"}},
        "profiles.yml": {"p": {"target": "dev", "outputs": {"dev": profile | {"password": ""}}}},
        "models/sources.yml": {"version": 2, "sources": [{"name": "bi", "schema": BI, "tables": [{"name": "event_daily"}]}]},
    }
    (tmp_path / "models").mkdir()
    for name, content in files.items():
        # JSON is valid YAML.
        (tmp_path / name).write_text(json.dumps(content))
    model = "SELECT event, sum(events) AS events FROM {{ source('bi', 'event_daily') }} GROUP BY event"
    (tmp_path / "models/events.sql").write_text("{{ config(order_by='event') }}\n" + model)
    # Runs the module, because the scripts of an environment that was moved do not start.
    run = "from dbt.cli.main import dbtRunner; import sys; sys.exit(not dbtRunner().invoke(sys.argv[1:]).success)"
    folders = ["--project-dir", str(tmp_path), "--profiles-dir", str(tmp_path)]
    variables = os.environ | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
    ended = subprocess.run(
        [sys.executable, "-c", run, "run", *folders], capture_output=True, text=True, cwd=tmp_path, env=variables
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with clickhouse_connect.get_client(host=server.hostname, port=server.port) as administrator:
        built = administrator.query(f"SELECT sum(events) FROM {BI}_models.events").result_rows
        assert built == administrator.query(f"SELECT sum(events) FROM {BI}.event_daily").result_rows


@pytest.mark.parametrize("program", [["node", "js/client.mjs"], ["go", "-C", "go", "run", "."]], ids=["node", "go"])
def test_a_program_reads_the_views(program):
    variables = os.environ | {
        "BI_URL": f"http://{SERVER.hostname}:{SERVER.port}", "BI_USER": SERVER.username, "BI_PASSWORD": SERVER.password,
        "BI_DATABASE": BI, "MANY": MANY, "TOO_MANY": TOO_MANY, "WRAPPED": WRAPPED,
        "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly",
    }  # fmt: skip
    ended = subprocess.run(program, capture_output=True, text=True, cwd=HERE, env=variables, timeout=500)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    assert set(found["views"]) == set(EXPECTED)
    columns = [f"event_daily.{one['name']} {one['type']}" for one in found["columns"]]
    assert columns == of_golden("event_daily") and all(one["comment"] for one in found["columns"])
    assert found["parallel"] == len(EXPECTED) and 0 < found["wrapped"] <= 3 and found["streamed"] == 900_000
    assert len(found["day"]) == 10 and found["events"] > 0
    assert "396" in found["refused"] and "Limit for result exceeded" in found["refused"]
