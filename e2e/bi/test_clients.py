"""clickhouse-connect and its SQLAlchemy, as notebooks and Superset use them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime

import clickhouse_connect
import pytest
import sqlalchemy
from sqlalchemy import func, select, text

from support import BI, DSNS, EXPECTED, GOLDEN, rows


@pytest.fixture(scope="module")
def engine():
    engine = sqlalchemy.create_engine(DSNS[0].replace("clickhouse://", "clickhousedb://"))
    yield engine
    engine.dispose()


def golden(view):
    """The names of the view's columns."""
    return [column.split(" ")[0].split(".")[1] for column in GOLDEN if column.startswith(f"{view}.")]


def test_schemas_tables_and_columns_are_listed_with_their_comments(engine):
    inspector = sqlalchemy.inspect(engine)
    assert BI in inspector.get_schema_names()
    assert set(inspector.get_table_names(BI)) == set(EXPECTED)
    assert inspector.get_table_comment("event_daily", BI)["text"].startswith("events per day by event, country")
    columns = inspector.get_columns("event_daily", BI)
    assert [column["name"] for column in columns] == golden("event_daily")
    assert all(column["comment"] and not column["nullable"] for column in columns)


def test_each_type_is_a_type_of_python(reader):
    (day, events, complete) = rows(reader, "SELECT day, events, complete FROM event_daily LIMIT 1")[0]
    assert [type(value) for value in (day, events, complete)] == [date, int, int]
    (hour, event) = rows(reader, "SELECT hour, event FROM event_hourly LIMIT 1")[0]
    assert [type(value) for value in (hour, event)] == [datetime, str]
    (time, props, event_id) = rows(reader, "SELECT client_time, props, event_id FROM events_recent LIMIT 1")[0]
    assert [type(value) for value in (time, props, event_id)] == [datetime, str, str]


def test_a_table_is_reflected_and_queried(engine):
    with engine.connect() as connection:
        view = sqlalchemy.Table("event_daily", sqlalchemy.MetaData(schema=BI), autoload_with=engine)
        query = select(view.c.event, func.sum(view.c.events)).group_by(view.c.event).order_by(view.c.event)
        found = connection.execute(query).fetchall()
        plain = connection.execute(text("SELECT event, sum(events) FROM event_daily GROUP BY event ORDER BY event"))
        assert found == plain.fetchall() and found


# The queries that Superset sends for a chart on a virtual dataset, a chart on a physical dataset, a filter box and a
# preview.
@pytest.mark.parametrize(
    "query",
    [
        f"SELECT toStartOfDay(toDateTime(`hour`)) AS `__timestamp`, `event` AS `event`, sum(`events`) AS `SUM(events)` "
        f"FROM (SELECT * FROM {BI}.event_hourly) AS `virtual_table` "
        "WHERE `hour` >= toDateTime('2026-01-01 00:00:00') AND `hour` < toDateTime('2100-01-01 00:00:00') "
        "GROUP BY `event`, toStartOfDay(toDateTime(`hour`)) ORDER BY `SUM(events)` DESC LIMIT 10000",
        f"SELECT toMonday(toDateTime(`day`)) AS `__timestamp`, max(`users`) AS `MAX(users)` FROM `{BI}`.`users_all_daily` "
        "WHERE `day` >= toDate('2026-01-01') AND `day` < toDate('2100-01-01') "
        "GROUP BY toMonday(toDateTime(`day`)) ORDER BY `MAX(users)` DESC LIMIT 50000",
        f"SELECT `country` AS `country` FROM `{BI}`.`event_daily` GROUP BY `country` LIMIT 1000",
        f"SELECT count(*) FROM (SELECT * FROM {BI}.events_recent) AS `virtual_table` WHERE `country` != ''",
        f"SELECT * FROM (SELECT * FROM {BI}.events_recent) AS `inner_qry` LIMIT 100",
        f"SELECT `poll`, `option`, `votes` FROM `{BI}`.`polls` ORDER BY `votes` DESC LIMIT 100",
    ],
)
def test_what_superset_asks_is_answered(engine, query):
    with engine.connect() as connection:
        assert connection.execute(text(query)).fetchall()


def test_a_time_zone_of_the_session_moves_times_and_no_days(reader):
    there = {"session_timezone": "Asia/Tokyo"}
    hour = "SELECT toHour(toTimeZone(hour, 'UTC')), toHour(hour) FROM event_hourly LIMIT 1"
    utc, shown = reader.query(hour, settings=there).result_rows[0]
    assert utc == shown, "the columns say that they are UTC"
    day = "SELECT toString(day) FROM event_daily ORDER BY day LIMIT 1"
    assert reader.query(day, settings=there).result_rows == rows(reader, day)


def test_queries_run_in_parallel(reader):
    def total(view):
        with clickhouse_connect.get_client(dsn=DSNS[0], autogenerate_session_id=False) as client:
            return rows(client, f"SELECT count() FROM `{view}`")[0][0]

    views = sorted(EXPECTED)
    with ThreadPoolExecutor(max_workers=8) as pool:
        assert all(count > 0 for count in pool.map(total, views))


def test_900_000_rows_are_streamed(reader):
    query = (
        "SELECT tenant, event, client_time, user_id, props, number AS row FROM (SELECT * FROM events_recent LIMIT 100) AS e "
        "CROSS JOIN (SELECT number FROM numbers(9000)) AS n"
    )
    seen, largest = 0, 0
    with reader.query_row_block_stream(query) as stream:
        for block in stream:
            seen, largest = seen + len(block), max(largest, len(block))
    assert seen == 900_000 and largest < seen, "in blocks, never whole"


def test_a_result_as_csv_has_a_header(reader):
    csv = reader.raw_query("SELECT * FROM freshness", fmt="CSVWithNames").decode().splitlines()
    assert csv[0] == '"as_of"' and len(csv) == 2
