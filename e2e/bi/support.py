"""Code and settings that the tests of this folder share.

The end-to-end test `read::analysts` runs them against a server whose views hold known events. It sets

    BI_READER_DSN, BI_JDBC_DSN   clickhouse://user:password@host:port/database, for each of the two users
    TABLES                       the database of the tables that the views read
    DEFINERS                     the definers of the views, whose rights they use, with a comma between them
    EXPECTED                     JSON: view -> measure -> the sum over all rows
    GOLDEN                       the file of the columns on which dashboards are built: `view.column type`
    PAGES                        the folder of the pages for users, with the dashboards for Grafana
"""

import json
import os
from pathlib import Path
from urllib.parse import urlparse

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

DSNS = [os.environ["BI_READER_DSN"], os.environ["BI_JDBC_DSN"]]
BI = urlparse(DSNS[0]).path.strip("/")
TABLES = os.environ["TABLES"]
DEFINERS = os.environ["DEFINERS"].split(",")
EXPECTED = json.loads(os.environ["EXPECTED"])
GOLDEN = Path(os.environ["GOLDEN"]).read_text().splitlines()
GRAFANA = Path(os.environ["PAGES"]) / "grafana"
PAGE = (Path(os.environ["PAGES"]) / "bi.md").read_text()
# Views of the pipeline itself, which do not have tenants.
WITHOUT_TENANTS = {"freshness", "pipeline_health"}

# ClickHouse's error codes for refused statements.
ACCESS_DENIED, READONLY, SETTING_CONSTRAINT_VIOLATION, UNKNOWN_TABLE = 497, 164, 452, 60


def rows(client, query):
    return client.query(query).result_rows


def code_of(error):
    """The code of a ClickHouse error."""
    return int(str(error).split("Code: ")[1].split(".")[0])


def refused(client, query):
    """Sends a query that the server must refuse. Returns the error code."""
    with pytest.raises(DatabaseError) as error:
        client.command(query)
    return code_of(error.value)
