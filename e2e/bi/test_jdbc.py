"""ClickHouse's JDBC driver, which DBeaver, Tableau and Metabase use, through the console sqlline."""

import csv
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlparse

from support import BI, DSNS, EXPECTED, GOLDEN

SERVER = urlparse(DSNS[1])
# sqlline prints results to standard output and errors to standard error.
SQLLINE = [
    "java", "-Xmx512m", "-cp", f"{os.environ['JDBC']}/*", "sqlline.SqlLine",
    "-d", "com.clickhouse.jdbc.ClickHouseDriver",
    # The driver does not read an error that follows rows, so the server must compute the whole result first.
    "-u", f"jdbc:clickhouse://{SERVER.hostname}:{SERVER.port}/{BI}?clickhouse_setting_wait_end_of_query=1",
    "-n", SERVER.username, "-p", SERVER.password,
    "--silent=true", "--color=false", "--outputformat=csv", "--incremental=true", "--timeFormat=yyyy-MM-dd",
    "--maxWidth=4096",
]  # fmt: skip


def run(*commands):
    """Runs SQL statements and commands of sqlline. Returns what sqlline prints, and the errors."""
    given = [word for command in commands for word in ("-e", command)]
    ended = subprocess.run([*SQLLINE, *given], capture_output=True, text=True, timeout=180)
    return ended.stdout, ended.stderr


def table(*commands):
    """The rows of all results as dictionaries. The keys are the columns of the first result."""
    printed, errors = run(*commands)
    assert "Error" not in errors, errors
    return list(csv.DictReader(printed.splitlines(), quotechar="'"))


def test_schemas_views_and_columns_are_listed_with_their_comments():
    schemas = {row["TABLE_SCHEM"] for row in table("!schemas")}
    assert BI in schemas
    views = {row["TABLE_NAME"]: row for row in table("!tables") if row["TABLE_SCHEM"] == BI}
    assert set(views) == set(EXPECTED)
    assert views["event_daily"]["REMARKS"].startswith("events per day by event, country")
    columns = [row for row in table("!columns event_daily") if row["TABLE_SCHEM"] == BI]
    described = [f"event_daily.{row['COLUMN_NAME']} {row['TYPE_NAME']}" for row in columns]
    assert described == [column for column in GOLDEN if column.startswith("event_daily.")]
    assert all(row["REMARKS"] and row["IS_NULLABLE"] == "NO" for row in columns)


def test_types_are_read_and_queries_that_tools_wrap_are_answered():
    (day,) = table("SELECT day, events, complete FROM event_daily LIMIT 1")
    assert len(day["day"]) == 10 and int(day["events"]) > 0 and day["complete"] in ("0", "1")
    # A count and a preview as in DBeaver, a custom query as in Tableau, and buckets as in Metabase.
    wrapped = [
        f"SELECT COUNT(*) AS n FROM `{BI}`.`events_recent`",
        f"SELECT 1 AS n FROM (SELECT * FROM `{BI}`.`event_hourly`) AS `t` LIMIT 1",
        f"SELECT SUM(`source`.`events`) AS n FROM (SELECT * FROM `{BI}`.`event_daily`) AS `source`",
        f"SELECT MAX(`users`) AS n FROM `{BI}`.`users_daily` WHERE `day` >= toDate('2000-01-01') GROUP BY `event` LIMIT 1",
    ]
    for query in wrapped:
        (found,) = table(query)
        assert int(found["n"]) > 0, query


def test_queries_run_in_parallel():
    with ThreadPoolExecutor(max_workers=4) as pool:
        counts = list(pool.map(lambda view: table(f"SELECT count() AS n FROM `{view}`"), sorted(EXPECTED)[:8]))
    assert all(int(rows[0]["n"]) > 0 for rows in counts)


def test_900_000_rows_are_streamed():
    query = (
        "SELECT tenant, event, client_time, number FROM (SELECT * FROM events_recent LIMIT 100) AS e "
        "CROSS JOIN (SELECT number FROM numbers(9000)) AS n"
    )
    # sqlline prints a line for each row, and has 512 MB of memory.
    with subprocess.Popen([*SQLLINE, "-e", query], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as console:
        lines = sum(1 for line in console.stdout if line.startswith("'default'"))
    assert lines == 900_000


def test_a_limit_and_a_missing_right_are_named():
    _, errors = run("SELECT number FROM numbers(1000001)")
    assert "Code: 396" in errors and "Limit for result exceeded, max rows: 1.00 million" in errors, errors
    _, errors = run("SELECT length(groupArray(toString(number))) FROM numbers(100000000)")
    assert "Code: 241" in errors and "would use" in errors, errors
    _, errors = run("SELECT name FROM system.users")
    assert "Code: 497" in errors, errors
