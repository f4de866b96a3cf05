"""Clients for the two users of analysts."""

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
    """One user, where both are the same: a user may run 600 queries a minute."""
    with clickhouse_connect.get_client(dsn=DSNS[0]) as client:
        yield client


@pytest.fixture(scope="module")
def jdbc():
    """The other user."""
    with clickhouse_connect.get_client(dsn=DSNS[1]) as client:
        yield client
