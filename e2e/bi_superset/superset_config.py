"""Superset's configuration, which Superset imports by this name."""

import os
import sqlite3

import sqlalchemy

SECRET_KEY = "for tests only, of thirty-two or more letters"
SQLALCHEMY_DATABASE_URI = f"sqlite:///{os.environ['SUPERSET_HOME']}/superset.db"
# These are protections for browsers, which these tests do not use.
WTF_CSRF_ENABLED = False
TALISMAN_ENABLED = False
LOG_LEVEL = "ERROR"


@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "connect")
def write_without_waiting_for_the_disk(connection, _):
    """Saves time: Superset runs 200 migrations and creates 1000 permissions, and commits each of them."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")
