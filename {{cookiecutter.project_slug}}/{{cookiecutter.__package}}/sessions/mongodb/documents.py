"""The documents of sessions in MongoDB: one collection, its fields and its indexes.

A session has a head and a document for each event. Each key of `user:` and `app:` state has a document, too.

    field                           in            content
    _id                             head          the same as `scope`
                                    event         `<log>/<revision>`: unique, which commits an append
                                    value         `<scope>/<digest of the name>`
    scope                           all           `session/<digest of the app>/<of the user>/<of the session>`;
                                                  of a value, `<digest of the app>` or
                                                  `<digest of the app>/<of the user>`
    order                           head, event   `END`, after all events; the revision of an event
    owner, user_id                  head, value   the scope of the user's values, for lists of sessions and
                                                  users; not in values of the app
    app_name, session_id            head
    log                             all           random and new for each creation: distinguishes the events
                                                  of sessions with the same id; in a value: the log of the
                                                  event that wrote it
    revision                        head, value   the number of events; the event that wrote the value
    incarnation, ttl                head          as in `Position` and `Head`
    created_at, updated_at          head          seconds since the epoch
    expires_at                      head, event   the same; null if the session lives for ever
    events_until                    head, event   the time until which the events are kept, likewise
    remove_at                       head, event   the moment at which the server removes the document
    state                           head, event   the session's own state; the changes of an event
    user, app                       event         the changes of `user:` and `app:` state
    unfinished                      head          these of the last event, until the values are written
    timestamp, data                 event         the event
    name, value                     value         a key, and its value
    stamp                           event, value  the moment at which it was written

    index                           on
    scope                           scope, order  to read sessions and values
    owner                           owner         to list sessions and users
    remove_at                       remove_at     a TTL index, by which the server removes documents

Moments are dates of the server's clock. The document `schema` has the version of this format. State keys are
escaped in names of fields, because `.` and `$` have a meaning there.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

from pymongo import ASCENDING, IndexModel

from ..store import Head, Position, ScopedState, SessionKey, SessionRecord, StoredEvent

Document = dict[str, Any]

SCHEMA = "schema"
SCHEMA_VERSION = 1

END = 1 << 62

INDEXES = [
    IndexModel([("scope", ASCENDING), ("order", ASCENDING)], name="scope"),
    IndexModel([("owner", ASCENDING)], name="owner", sparse=True),
    IndexModel([("remove_at", ASCENDING)], name="remove_at", sparse=True, expireAfterSeconds=0),
]

GRACE = 300.0
"""Seconds that an expired session stays on the server, because the clock of a reader may be slow."""
MAX_SPARE = 7 * 86_400.0
"""Seconds that events are kept longer than their session at most, unless its TTL is longer."""

MAX_DOCUMENT = (16 << 20) - (64 << 10)
"""Bytes of data in a document. MongoDB's limit is 16 MiB, and the rest is for our fields."""


# Names.


def digest(*texts: str) -> str:
    """Return a short name without special characters for any texts."""
    whole = b"".join(b"%d:%b" % (len(data), data) for data in (text.encode() for text in texts))
    return base64.urlsafe_b64encode(hashlib.sha256(whole).digest()).decode().rstrip("=")


def session_scope(key: SessionKey) -> str:
    """Return the scope of a session's head and events."""
    return f"{sessions_of(user_scope(key.app_name, key.user_id))}{digest(key.session_id)}"


def sessions_of(owner: str) -> str:
    """Return the beginning of the scopes of a user's sessions, which the scope of values has not."""
    return f"session/{owner}/"


def user_scope(app_name: str, user_id: str) -> str:
    """Return the scope of a user's values, and the owner of the user's sessions."""
    return f"{digest(app_name)}/{digest(user_id)}"


def shared_scopes(key: SessionKey) -> tuple[str, str]:
    """Return the scopes of the values of a session's user and app."""
    return user_scope(key.app_name, key.user_id), digest(key.app_name)


def escape(state: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return state with names that are valid for fields: not empty, no number, without `.$` and NUL."""
    return {f"_{quote(name, safe='').replace('.', '%2E')}": value for name, value in state.items()}


def unescape(fields: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return state with its original names."""
    return {unquote(name[1:]): value for name, value in fields.items()}


# Records of the seam to documents.


def state_fields(state: ScopedState) -> Document:
    """Return the fields `state`, `user` and `app`, without empty ones."""
    scopes = {"state": state.session, "user": state.user, "app": state.app}
    return {field: escape(values) for field, values in scopes.items() if values}


def new_head(head: Head, log: str, state: Mapping[str, bytes]) -> Document:
    """Return the head of a new session. `state` is escaped."""
    key, scope = head.key, session_scope(head.key)
    document = {
        "_id": scope,
        "scope": scope,
        "order": END,
        "owner": user_scope(key.app_name, key.user_id),
        "app_name": key.app_name,
        "user_id": key.user_id,
        "session_id": key.session_id,
        "log": log,
        "revision": head.position.revision,
        "incarnation": head.position.incarnation,
        "ttl": head.ttl,
        "created_at": head.updated_at,
        "updated_at": head.updated_at,
        "expires_at": head.expires_at,
        "events_until": None,
        "state": dict(state),
    }
    return document | {"events_until": events_until(document, head.expires_at)}


def new_event(
    head: Document, data: bytes, timestamp: float, expires_at: float | None, state: Document
) -> Document:
    """Return the event after a head. `state` is from `state_fields`."""
    revision = head["revision"] + 1
    return {
        "_id": event_id(head["log"], revision),
        "scope": head["scope"],
        "order": revision,
        "log": head["log"],
        "expires_at": expires_at,
        "events_until": events_until(head, expires_at),
        "timestamp": timestamp,
        "data": data,
        **state,
    }


def event_id(log: str, revision: int) -> str:
    """Return the `_id` of an event."""
    return f"{log}/{revision:012d}"


def events_until(head: Document, expires_at: float | None) -> float | None:
    """Return the time until which the events of a session are kept that now expires at `expires_at`.

    When the session comes close to that time, it is extended by the age of the session. So all events are
    updated seldom, and an append touches no earlier event.
    """
    until: float | None = head["events_until"]
    if expires_at is None or (until and until >= expires_at + GRACE):
        return until
    age = expires_at - head["created_at"]
    return float(expires_at + GRACE + max(head["ttl"], min(age, MAX_SPARE)))


def check_size(what: str, *parts: Mapping[str, bytes] | bytes, size: int = 0) -> None:
    """Check that data fits into a document that already has `size` bytes.

    Raises:
        ValueError: it does not fit.
    """
    size += sum(len(part) if isinstance(part, bytes) else size_of(part) for part in parts)
    if size > MAX_DOCUMENT:
        raise ValueError(
            f"{what} would take {size / (1 << 20):.1f} MB; a document of MongoDB holds"
            f" {MAX_DOCUMENT / (1 << 20):.1f}: keep large contents elsewhere, as artifacts."
        )


def size_of(fields: Mapping[str, bytes]) -> int:
    """Return the bytes of escaped state in a document, or a few more."""
    return sum(len(name) + len(value) + 16 for name, value in fields.items())


# Documents to records of the seam.


def head_of(key: SessionKey, head: Document) -> Head:
    """Return the head of the seam."""
    position = Position(head["incarnation"], head["revision"])
    return Head(key, position, head["updated_at"], head["ttl"], head["expires_at"])


def session_record(
    key: SessionKey,
    head: Document,
    values: Mapping[str, Mapping[str, bytes]],
    events: Iterable[Document] = (),
) -> SessionRecord:
    """Return a session. `values` are by scope."""
    user, app = (values.get(scope, {}) for scope in shared_scopes(key))
    return SessionRecord(
        head_of(key, head),
        ScopedState(app, user, unescape(head["state"])),
        [StoredEvent(event["order"], event["timestamp"], event["data"]) for event in events],
    )
