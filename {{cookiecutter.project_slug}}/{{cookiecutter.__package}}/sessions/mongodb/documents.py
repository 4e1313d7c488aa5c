"""What MongoDB holds for `mongodb.py`: the documents of its one collection, and how they are written.

    head    one a session: its position, times and own state; `_id` is a digest of its name
    event   one each; `_id` is `<log>/<revision>`, which is unique, and so what commits an append
    value   one a key of `user:` and `app:` state; `_id` is a digest of whose it is, and of the key

`of` says to what a document belongs: to a session or, of a value, to a user or an app. An event has
its revision for `place`, a head `HEAD`, behind all events: one range of the index on both is what a
reader wants. A `log` is the events of one incarnation of a session, and random, so that a session which
is created again under its old name gets slots of its own. Names of state keys are escaped, because
names of fields mean something to MongoDB.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

from pymongo import ASCENDING, IndexModel, UpdateMany, UpdateOne

from ..store import ScopedState, SessionKey

Document = dict[str, Any]

HEAD = 1 << 62
"""The place of heads, behind all events."""
CLOSED = -1
"""The place of slots that must stay taken although nothing is in them any more."""

INDEXES = [
    IndexModel([("of", ASCENDING), ("place", ASCENDING)], name="place"),
    IndexModel([("owner", ASCENDING)], name="owner", sparse=True),
    IndexModel([("gone_at", ASCENDING)], name="gone_at", sparse=True, expireAfterSeconds=0),
]
"""For reading a session, for lists and values, and for the server to remove what has expired."""

NOW = "$$NOW"
"""The server's clock: what stamps the values of users and apps."""

DUPLICATE, GUARDED = 11000, 241
"""Codes of the errors that stop the operations of one command: a slot is taken, a guard refused."""


# Names.


def digest(*texts: str) -> str:
    """Return a short text without special characters that stands for some of any kind."""
    whole = b"".join(b"%d:%b" % (len(data), data) for data in (text.encode() for text in texts))
    return base64.urlsafe_b64encode(hashlib.sha256(whole).digest()).decode().rstrip("=")


def session_of(key: SessionKey) -> str:
    """Return what the documents of a session belong to."""
    return digest(key.app_name, key.user_id, key.session_id)


def app_of(app_name: str) -> str:
    """Return what the values of an app belong to."""
    return digest(app_name)


def user_of(app_name: str, user_id: str) -> str:
    """Return what the values of a user belong to; the users of an app are a range."""
    return f"{digest(app_name)}/{digest(user_id)}"


def values_of(scope: str) -> str:
    """Return the `owner` of values, which differs from that of a user's sessions."""
    return f"={scope}"


def slot(log: str, revision: int) -> str:
    """Return the `_id` of an event."""
    return f"{log}/{revision:012d}"


def escaped(state: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return state under names that are safe for fields: not empty, no number, without `.$` and NUL."""
    return {f"_{quote(name, safe='').replace('.', '%2E')}": value for name, value in state.items()}


def unescaped(fields: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return state under its own names."""
    return {unquote(name[1:]): value for name, value in fields.items()}


def said(state: ScopedState) -> Document:
    """Return state as an event carries it: by scope, without empty ones."""
    scopes = {"state": state.session, "user": state.user, "app": state.app}
    return {scope: escaped(values) for scope, values in scopes.items() if values}


def size_of(fields: Mapping[str, bytes]) -> int:
    """Return how many bytes escaped state takes in a document, or a few more."""
    return sum(len(name) + len(value) + 16 for name, value in fields.items())


def server_time(seconds: float) -> datetime:
    """Return the moment in so many seconds; the server compares it with a clock of its own."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


# Writing. The operations of an append travel as one `update` command, whose statements the server
# executes in order until one fails. That is why an insertion is an upsert that never matches.


def insert_event(event: Document) -> UpdateOne:
    """Take a slot, or fail with DUPLICATE; the document is all that `advance` will need."""
    fields = {name: value for name, value in event.items() if name not in ("_id", "of")}
    update: Document = {"$setOnInsert": fields}
    if "user" in event or "app" in event:
        update["$currentDate"] = {"stamp": True}
    nothing = _only(event["_id"], event["of"]) | {"data": {"$exists": False}}
    return UpdateOne(nothing, update, upsert=True)


def insert_head(head: Document, said: Document) -> UpdateOne:
    """Create a session, or fail with DUPLICATE."""
    nothing = _only(head["_id"], head["of"]) | {"log": {"$exists": False}}
    return UpdateOne(nothing, _whole_head(head, said), upsert=True)


def replace_head(old: Document, head: Document, said: Document) -> UpdateOne:
    """Create a session in the place of one that is over, unless that has changed."""
    return UpdateOne(_exactly(old), _whole_head(head, said))


def advance(event: Document, stamp: Any) -> UpdateOne:
    """Bring the head from the event before to this one, or fail with GUARDED and change nothing."""
    guard: list[Any] = [
        {"$eq": ["$log", {"$literal": event["log"]}]},
        {"$eq": ["$revision", event["place"] - 1]},
        {"$eq": [{"$type": "$pending"}, "missing"]},
    ]
    fields: Document = {"updated_at": event["timestamp"]}
    if "keep" in event:
        guard.append({"$eq": ["$keep", event["keep"]]})
        fields |= {"expires_at": event["expires_at"], "gone_at": event["until"]}
    fields |= {f"state.{name}": value for name, value in event.get("state", {}).items()}
    update = {name: {"$literal": value} for name, value in fields.items()}
    # No digest is a number: the conversion is an error, and an error is what ends the command.
    update["revision"] = {"$cond": [{"$and": guard}, event["place"], {"$toInt": "$_id"}]}
    if pending := shared(event["log"], event["place"], event):
        update["told"] = event["place"]
        update["pending"] = _stamped(pending, stamp)
    return UpdateOne(_only(event["of"], event["of"]), [{"$set": update}])


def share(key: SessionKey, pending: Document, stamp: Any) -> Iterator[UpdateOne]:
    """Write what an event, or the creation, says of user and app, and take it off the head.

    Whoever appends writes it with the stamp NOW, and so over what is there. Whoever finishes what
    another began, perhaps long ago, has the stamp of then, and leaves alone what is newer. Neither
    ever goes back behind a later event of the same log.
    """
    log, revision = pending["log"], pending["revision"]
    later: list[Any] = [{"$and": [{"$eq": ["$log", log]}, {"$gt": ["$revision", revision]}]}]
    if stamp != NOW:
        later.append({"$gte": ["$stamp", stamp]})
    for scope, name in (
        (user_of(key.app_name, key.user_id), "user"),
        (app_of(key.app_name), "app"),
    ):
        for state_key, value in unescaped(pending.get(name, {})).items():
            written = {
                "owner": values_of(scope),
                "name": state_key,
                "value": value,
                "log": log,
                "revision": revision,
            }
            stamped = {"stamp": {"$max": ["$stamp", stamp]}}
            merged = {"$mergeObjects": ["$$ROOT", {"$literal": written}, stamped]}
            yield UpdateOne(
                _only(f"{values_of(scope)}/{digest(state_key)}", scope),
                [{"$replaceWith": {"$cond": [{"$or": later}, "$$ROOT", merged]}}],
                upsert=True,
            )
    here = _only(session_of(key), session_of(key))
    yield UpdateOne(here | {"log": log, "revision": revision}, {"$unset": {"pending": ""}})


def shared(log: str, revision: int, said: Document) -> Document | None:
    """Return what `share` wants to know, or None where nothing is said of user and app."""
    given: Document = {scope: said[scope] for scope in ("user", "app") if scope in said}
    return {"log": log, "revision": revision, **given} if given else None


def close(head: Document, gone_at: datetime) -> UpdateOne:
    """Take the slot behind the last event, so that nobody can append any more, or fail with DUPLICATE."""
    fields = {"place": CLOSED, "log": head["log"], "data": b"", "gone_at": gone_at}
    nothing = _only(slot(head["log"], head["revision"] + 1), head["of"])
    return UpdateOne(nothing | {"data": {"$exists": False}}, {"$setOnInsert": fields}, upsert=True)


def end(head: Document, gone_at: datetime) -> UpdateOne:
    """Leave of a head what keeps late writers out, until the server removes it."""
    said = ("owner", "app", "user", "session", "pending")
    return UpdateOne(
        _exactly(head),
        {
            "$set": {"expires_at": 0.0, "state": {}, "gone_at": gone_at},
            "$unset": dict.fromkeys(said, ""),
        },
    )


def empty(head: Document, gone_at: datetime) -> UpdateMany:
    """Leave of the events of a log their slots alone, until the server removes them."""
    return UpdateMany(
        events_of(head),
        {
            "$set": {"place": CLOSED, "data": b"", "gone_at": gone_at},
            "$unset": dict.fromkeys(("state", "user", "app"), ""),
        },
    )


def events_of(head: Document) -> Document:
    """Return a query for the events of a session."""
    return {"of": head["of"], "log": head["log"], "place": {"$gt": 0, "$lt": HEAD}}


def _only(id_: str, of: str) -> Document:
    # A sharded collection wants to be told `of`, its shard key; written so, `_id` stays what is looked up.
    return {"_id": id_, "of": {"$eq": of}}


def _exactly(head: Document) -> Document:
    wanted = {name: {"$eq": head.get(name)} for name in ("log", "revision", "expires_at")}
    return _only(head["_id"], head["of"]) | wanted


def _whole_head(head: Document, said: Document) -> list[Document]:
    parts: list[Any] = [{"$literal": head}]
    if pending := shared(head["log"], 0, said):
        parts.append({"told": 0, "pending": _stamped(pending, NOW)})
    return [{"$replaceWith": {"$mergeObjects": parts}}]


def _stamped(pending: Document, stamp: Any) -> Document:
    return {"$mergeObjects": [{"$literal": pending}, {"stamp": stamp}]}
