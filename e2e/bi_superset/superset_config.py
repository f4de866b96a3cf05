"""Superset's configuration, which Superset imports by this name."""

import os
import sqlite3

import sqlalchemy

SECRET_KEY = "for tests only, of thirty-two or more letters"
SQLALCHEMY_DATABASE_URI = f"sqlite:///{os.environ['SUPERSET_HOME']}/superset.db"
# For browsers, which these tests have none of.
WTF_CSRF_ENABLED = False
TALISMAN_ENABLED = False
LOG_LEVEL = "ERROR"


@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "connect")
def write_without_waiting_for_the_disk(connection, _):
    """Superset makes 200 migrations and 1000 permissions, and commits each."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")
