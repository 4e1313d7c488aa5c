"""The tables, and checks of the file.

The id of an event is the id of its session × 2³² + its revision. So one B-tree has all logs, each of them in
one run, and an append touches one page. `purge_at` is up to an hour after `expires_at`, so not every append
writes its index.
"""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from ..errors import ConfigurationError

APPLICATION_ID = 0x41444B53
"""Marks the files of this store: `ADKS` in ASCII. See https://www.sqlite.org/pragma.html#pragma_application_id"""
SCHEMA_VERSION = 1


SCHEMA = """
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    app_name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    revision INTEGER NOT NULL,
    updated_at REAL NOT NULL,
    ttl INTEGER NOT NULL,
    expires_at REAL,
    purge_at REAL,
    UNIQUE (app_name, user_id, session_id)
);

CREATE INDEX sessions_to_purge ON sessions (purge_at) WHERE purge_at IS NOT NULL;

CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    timestamp REAL NOT NULL,
    data BLOB NOT NULL
);

CREATE TRIGGER events_of_deleted AFTER DELETE ON sessions BEGIN
    DELETE FROM events WHERE id BETWEEN old.id << 32 AND (old.id + 1 << 32) - 1;
END;

CREATE TABLE session_state (
    session INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (session, key)
) WITHOUT ROWID;

CREATE TABLE user_state (
    app_name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (app_name, user_id, key)
) WITHOUT ROWID;

CREATE TABLE app_state (
    app_name TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (app_name, key)
) WITHOUT ROWID;
"""


def create_file(path: Path) -> None:
    """Create an empty file that only its owner can read, and its folder.

    SQLite gives the files beside it (`-wal`, `-shm`) the same permissions.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def prepare(db: sqlite3.Connection, busy_timeout: float) -> None:
    """Create the tables, unless another process has created them."""
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            # The busy timeout does not apply while another process does the same.
            db.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    db.execute("BEGIN IMMEDIATE")
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        for statement in SCHEMA.split("\n\n"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def refuse_foreign_file(path: Path) -> None:
    """Refuse a file that is neither missing nor empty nor of this store. It is not changed."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            raise ConfigurationError(f"{path.absolute()} is not a SQLite file: name another one.")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        db.execute("PRAGMA busy_timeout = 10000")
        application_id = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if application_id != APPLICATION_ID and tables:
        owner = (
            "ADK's own session service"
            if {"sessions", "events", "app_states", "user_states"} <= tables
            else "another program"
        )
        raise ConfigurationError(f"{path.absolute()} is a database of {owner}: name another file.")
    if application_id == APPLICATION_ID and version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path.absolute()} was written by a newer version of this program (schema {version},"
            f" this one knows {SCHEMA_VERSION}): upgrade the program or name another file."
        )
