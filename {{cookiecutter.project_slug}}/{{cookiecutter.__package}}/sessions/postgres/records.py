"""Converts records of the seam to arguments of statements, and rows to records."""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256

import asyncpg

from ..store import Head, Position, ScopedState, SessionKey, SessionRecord, StoredEvent
from .statements import APP_STATE, EVENT, SESSION, SESSION_STATE, USER_STATE

LARGEST = 500_000_000
"""Bytes of one write. PostgreSQL's limit is 1 GB in text form, which is twice as long."""


def names(key: SessionKey) -> tuple[bytes, bytes, bytes]:
    """Return the first three arguments of every statement on one session."""
    return key.app_name.encode(), key.user_id.encode(), key.session_id.encode()


def state_arguments(state: ScopedState, event: bytes = b"") -> list[list[bytes]]:
    """Return keys and values of session, user and app as six lists.

    Raises:
        ValueError: they are too large together with the event.
    """
    arguments: list[list[bytes]] = []
    for values in (state.session, state.user, state.app):
        arguments += [[key.encode() for key in values], list(values.values())]
    size = len(event) + sum(len(item) for items in arguments for item in items)
    if size > LARGEST:
        raise ValueError(
            f"An event of {size / 1e6:.0f} MB with its state is too large for PostgreSQL: keep what is"
            " that large as an artifact."
        )
    return arguments


def session_records(app_name: str, rows: Sequence[asyncpg.Record]) -> list[SessionRecord]:
    """Return the sessions of rows of `READ_LIVE`. Only a single session has events."""
    # State by kind of row, and by the digest of the user or the number of the session.
    states: defaultdict[tuple[int, bytes | int | None], dict[str, bytes]] = defaultdict(dict)
    heads, events = [], []
    for row in rows:
        kind = row["kind"]
        if kind == EVENT:
            events.append(StoredEvent(row["revision"], row["timestamp"], row["value"]))
        elif kind == SESSION:
            heads.append(row)
        else:
            owner = row["session_number"] if kind == SESSION_STATE else row["owner"]
            states[kind, owner][row["key"].decode()] = row["value"]
    records = []
    for row in heads:
        user = states[USER_STATE, sha256(row["owner"]).digest()]
        state = ScopedState(
            states[APP_STATE, None], user, states[SESSION_STATE, row["session_number"]]
        )
        records.append(SessionRecord(_head(app_name, row), state, events))
    return records


def _head(app_name: str, row: asyncpg.Record) -> Head:
    key = SessionKey(app_name, row["owner"].decode(), row["key"].decode())
    position = Position(row["incarnation"], row["revision"])
    return Head(key, position, row["timestamp"], row["ttl_seconds"], row["expires_at"])
