"""Clients for the two users that analysts have."""

from urllib.parse import urlparse

import clickhouse_connect
import pytest

from support import DSNS


@pytest.fixture(scope="module", params=DSNS, ids=lambda dsn: urlparse(dsn).username)
def client(request):
    with clickhouse_connect.get_client(dsn=request.param) as client:
        yield client


@pytest.fixture(scope="module")
def reader():
    """The first user, for tests that need not run with both: a user may run only 600 queries a minute."""
    with clickhouse_connect.get_client(dsn=DSNS[0]) as client:
        yield client


@pytest.fixture(scope="module")
def jdbc():
    """The second user."""
    with clickhouse_connect.get_client(dsn=DSNS[1]) as client:
        yield client
