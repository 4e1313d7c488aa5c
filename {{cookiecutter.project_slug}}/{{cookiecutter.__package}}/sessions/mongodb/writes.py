"""Writes: operations in one command, which the server executes in order until one is refused.

No transaction is used, so the same command works on a replica set, a sharded cluster and a standalone server. An
append is

    insert the event    its `_id` is unique: one of two writers with the same copy is refused
    advance the head    to the event's revision, with the state that the event changes
    write the values    of `user:` and `app:` state, if the event changes any
    settle the head     the values are written

The server may stop after any of them, and the writer may be killed before it repeats the command. So the event
has all data for the head, and the head has the values until they are written. A reader that finds an event after
the head, or an unsettled head, completes the append. Any number of readers and writers may repeat each operation
at the same time. A repetition changes nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pymongo import UpdateMany, UpdateOne
from pymongo import errors as driver
from pymongo.results import BulkWriteResult

from ..store import SessionKey, SessionRecord
from .collection import Collection
from .documents import (
    END,
    GRACE,
    Document,
    digest,
    escape,
    event_id,
    session_scope,
    shared_scopes,
    unescape,
)

Operation = UpdateOne | UpdateMany

NOW = "$$NOW"
"""The server's clock. Clocks of writers decide neither what is newer nor when something is removed."""

REFUSE = {"$toInt": "$_id"}
"""An expression that fails: no `_id` of a head is a number. An error ends the command."""

REFUSALS = {11000, 241}
"""Codes of refused operations: the `_id` exists, or `REFUSE` was evaluated."""

AT_ONCE = 100
"""Operations in one command. Each command has its own time-out, so an event with thousands of `user:` keys is
written in the end, by its writer or by a reader."""


async def write(collection: Collection, operations: Sequence[Operation]) -> BulkWriteResult | None:
    """Execute operations in order. Return the result of the first command, or None after a refusal."""
    results = []
    try:
        for start in range(0, len(operations), AT_ONCE):
            results.append(await collection.bulk_write(operations[start : start + AT_ONCE]))
    except driver.OperationFailure as error:
        if not _is_refusal(error):
            raise
        return None
    return results[0]


def _is_refusal(error: driver.OperationFailure) -> bool:
    if not isinstance(error, driver.BulkWriteError):
        return error.code in REFUSALS
    details = error.details or {}
    codes = {problem["code"] for problem in details.get("writeErrors", [])}
    return bool(codes) and codes <= REFUSALS and not details.get("writeConcernErrors")


def create(key: SessionKey, head: Document, state: Document, now: float) -> list[Operation]:
    """Create a session, or replace an expired one. Refused if there is a live one."""
    expired = [{"$ne": [{"$type": "$expires_at"}, "null"]}, {"$lte": ["$expires_at", now]}]
    free = {"$or": [_is_missing("revision"), {"$and": expired}]}
    removal, unfinished = _removal(head["expires_at"], GRACE - now), _unfinished(state, NOW)
    parts = [{"$literal": head}, removal, unfinished]
    created = {"$cond": [free, {"$mergeObjects": parts}, REFUSE]}
    first = UpdateOne(one(head["_id"], head["scope"]), [{"$replaceWith": created}], upsert=True)
    return [first, *share(key, head["log"], 0, state, NOW)]


def lease(key: SessionKey, holder: str, now: float, ttl: int) -> UpdateOne:
    """Take a lease, or extend it. Refused if another holder has it."""
    scope = session_scope(key)
    document = {"_id": scope, "scope": scope, "holder": holder, "expires_at": now + ttl}
    own = {"$eq": ["$holder", holder]}
    free = {"$or": [_is_missing("holder"), own, {"$lte": ["$expires_at", now]}]}
    whole = {"$mergeObjects": [{"$literal": document}, _removal(ttl, GRACE)]}
    taken = {"$cond": [free, whole, REFUSE]}
    return UpdateOne(one(scope, scope), [{"$replaceWith": taken}], upsert=True)


def append(key: SessionKey, head: Document, event: Document, now: float) -> list[Operation]:
    """Write an event after a known head, and all its effects."""
    operations: list[Operation] = []
    if event["events_until"] != head["events_until"]:
        operations.append(_keep_events(event, now))
    operations += [_insert(event, now), advance(event, now, NOW)]
    return [*operations, *share(key, event["log"], event["order"], event, NOW)]


def _keep_events(event: Document, now: float) -> UpdateMany:
    # Before the session is extended: if the writer is killed after this, events are only kept too long.
    later = {"$max": ["$remove_at", _in(event["events_until"] - now)]}
    events = {"scope": event["scope"], "log": event["log"], "order": {"$lt": END}}
    return UpdateMany(events, [{"$set": {"remove_at": later}}])


def _insert(event: Document, now: float) -> UpdateOne:
    # An upsert that matches nothing, because a command of updates cannot have an insert.
    parts = [{"$literal": event}, {"stamp": NOW}, _removal(event["events_until"], -now)]
    nothing = one(event["_id"], event["scope"]) | {"data": {"$exists": False}}
    return UpdateOne(nothing, [{"$replaceWith": {"$mergeObjects": parts}}], upsert=True)


def advance(event: Document, now: float, stamp: Any) -> UpdateOne:
    """Advance the head to this event. Refused unless the head is settled at the event before."""
    guard = [
        {"$eq": ["$log", event["log"]]},
        {"$eq": ["$revision", event["order"] - 1]},
        _is_missing("unfinished"),
    ]
    fields = {
        "updated_at": event["timestamp"],
        "expires_at": event["expires_at"],
        "events_until": event["events_until"],
        **{f"state.{name}": value for name, value in event.get("state", {}).items()},
    }
    changes = {
        **{name: {"$literal": value} for name, value in fields.items()},
        "revision": {"$cond": [{"$and": guard}, event["order"], REFUSE]},
        **_removal(event["expires_at"], GRACE - now),
        **_unfinished(event, stamp),
    }
    return UpdateOne(one(event["scope"], event["scope"]), [{"$set": changes}], upsert=True)


def share(
    key: SessionKey, log: str, revision: int, state: Document, stamp: Any
) -> Iterator[UpdateOne]:
    """Write the values of `user` and `app` that an event or a creation changes, and settle the head.

    A writer uses the stamp NOW and overwrites older values. A reader that completes an interrupted append uses
    the stamp of that append and keeps newer values. Neither overwrites a later event of the same log.
    """
    newer: list[Any] = [{"$and": [{"$eq": ["$log", log]}, {"$gt": ["$revision", revision]}]}]
    if stamp != NOW:
        newer.append({"$gte": ["$stamp", stamp]})
    user, app = shared_scopes(key)
    values = [
        (scope, name, value)
        for scope, field in ((user, "user"), (app, "app"))
        for name, value in unescape(state.get(field, {})).items()
    ]
    for scope, name, value in values:
        fields = {"scope": scope, "name": name, "value": value, "log": log, "revision": revision}
        if scope == user:
            fields |= {"owner": user, "user_id": key.user_id}
        parts = ["$$ROOT", {"$literal": fields}, {"stamp": {"$max": ["$stamp", stamp]}}]
        merged = {"$cond": [{"$or": newer}, "$$ROOT", {"$mergeObjects": parts}]}
        id_ = f"{scope}/{digest(name)}"
        yield UpdateOne(one(id_, scope), [{"$replaceWith": merged}], upsert=True)
    if values:
        head = one(session_scope(key), session_scope(key)) | {"log": log, "revision": revision}
        yield UpdateOne(head, {"$unset": {"unfinished": ""}})


def rewrite(old: SessionRecord, new: SessionRecord, log: str | None) -> Iterator[UpdateOne]:
    """Replace events and values of `old` by those of `new`. `log` is that of the session, if it exists.

    The changes of state of these events have reached the head and the values. They are removed.
    """
    key, scope = old.head.key, session_scope(old.head.key)
    if log is not None:
        for before, after in zip(old.events, new.events, strict=True):
            event = one(event_id(log, before.revision), scope) | {"data": before.data}
            obsolete = {"$unset": dict.fromkeys(("state", "user", "app"), "")}
            yield UpdateOne(event, {"$set": {"data": after.data}} | obsolete)
        renewed = escape(new.state.session)
        for name, value in escape(old.state.session).items():
            head = one(scope, scope) | {"log": log, f"state.{name}": value}
            yield UpdateOne(head, {"$set": {f"state.{name}": renewed[name]}})
    for owner, values, others in zip(
        shared_scopes(key),
        (old.state.user, old.state.app),
        (new.state.user, new.state.app),
        strict=True,
    ):
        for name, value in values.items():
            found = one(f"{owner}/{digest(name)}", owner) | {"value": value}
            yield UpdateOne(found, {"$set": {"value": others[name]}})


def one(id_: str, scope: str) -> Document:
    """Return the query for one document. A sharded collection needs its shard key, `scope`."""
    # With `$eq`, MongoDB uses the index of `_id` alone.
    return {"_id": id_, "scope": {"$eq": scope}}


def _unfinished(state: Document, stamp: Any) -> Document:
    changed = {field: state[field] for field in ("user", "app") if field in state}
    whole = {"$mergeObjects": [{"$literal": changed}, {"stamp": stamp}]}
    return {"unfinished": whole} if changed else {}


def _removal(end: float | None, seconds: float) -> Document:
    """Return `remove_at` as `end` plus `seconds`, or nothing without an end."""
    return {} if end is None else {"remove_at": _in(end + seconds)}


def _in(seconds: float) -> Document:
    return {"$add": [NOW, int(seconds * 1_000)]}


def _is_missing(field: str) -> Document:
    return {"$eq": [{"$type": f"${field}"}, "missing"]}
