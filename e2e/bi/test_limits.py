"""A query that reaches a limit ends with an error that names the limit. Runs last, because it uses up the quota."""

from concurrent.futures import ThreadPoolExecutor

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from support import DSNS, code_of, rows


@pytest.mark.parametrize(
    ("query", "code", "says"),
    [
        ("SELECT number FROM numbers(1000001)", 396, "Limit for result exceeded, max rows: 1.00 million"),
        ("SELECT max(sipHash64(number)) FROM numbers(1000000000000) SETTINGS max_execution_time = 1", 159, "Timeout exceeded"),
        ("SELECT length(groupArray(toString(number))) FROM numbers(100000000)", 241, "would use"),
    ],
    ids=["rows", "time", "memory"],
)
def test_a_limit_is_named(reader, query, code, says):
    with pytest.raises(DatabaseError) as error:
        rows(reader, query)
    assert code_of(error.value) == code and says in str(error.value)


def test_a_part_of_the_rows_is_returned_if_the_client_wants_that(reader):
    settings = {"max_result_rows": 10, "result_overflow_mode": "break", "max_block_size": 5}
    found = reader.query("SELECT number FROM numbers(1000000)", settings=settings).result_rows
    assert 0 < len(found) < 1000


def test_an_eleventh_query_at_once_is_refused():
    # Each client asks for the server's version when it is created, and this must not be the eleventh query.
    clients = [clickhouse_connect.get_client(dsn=DSNS[0], autogenerate_session_id=False) for _ in range(14)]

    def sleep(client):
        try:
            return rows(client, "SELECT sleep(3)")
        except DatabaseError as error:
            return code_of(error), "Too many simultaneous queries for user" in str(error)

    with ThreadPoolExecutor(max_workers=len(clients)) as pool:
        results = list(pool.map(sleep, clients))
    assert (202, True) in results and [(0,)] in results
    for client in clients:
        client.close()


def test_the_601st_query_of_a_minute_is_refused(jdbc):
    # A minute may end during the loop, and then 600 more queries are permitted. `SELECT 1` would not count.
    for _ in range(1300):
        try:
            rows(jdbc, "SELECT as_of FROM freshness")
        except DatabaseError as error:
            assert code_of(error) == 201 and "Quota for user `bi_jdbc` for 60s has been exceeded" in str(error)
            break
    else:
        pytest.fail("no query was refused")
