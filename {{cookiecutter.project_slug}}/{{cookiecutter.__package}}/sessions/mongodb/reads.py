"""Reading sessions, and completing the work of interrupted writers."""

from collections.abc import Iterable, Sequence
from operator import itemgetter

from ..errors import StoreUnavailable
from ..store import SessionKey
from .collection import Collection
from .documents import END, Document, session_scope
from .writes import advance, share, write

ALL = (1 << 31) - 1
"""Documents in one reply, whose limit is 16 MB anyway."""

ATTEMPTS = 20
"""Attempts to read a session while writers change it."""

SCOPES_AT_ONCE = 10_000
"""Scopes in one query. Each takes a hundred bytes, and the limit of a query is 16 MB."""


async def read_session(
    collection: Collection,
    key: SessionKey,
    *,
    now: float,
    after: int = 0,
    limit: int | None = None,
    since: float | None = None,
) -> tuple[Document, Sequence[Document]] | None:
    """Return the head of a live session and the selected events, or None.

    If a writer has not finished, because it was killed or still runs, its work is completed first.
    """
    query: Document = {"scope": session_scope(key), "order": {"$gt": after}}
    if since is not None:
        query["timestamp"] = {"$not": {"$lt": since}}
    log: Document = {}
    for _ in range(ATTEMPTS):
        cursor = collection.find(query | log, batch_size=ALL)
        if limit is not None:
            cursor = cursor.sort("order", -1).limit(limit + 1)
        found = sorted(await cursor.to_list(), key=itemgetter("order"))
        if not found or found[-1]["order"] != END:
            if not log:
                return None
            log = {}
            continue
        head = found.pop()
        events = [event for event in found if event["log"] == head["log"]]
        if limit and len(events) < len(found):
            # Events of an earlier session with the same id took the place of selected ones.
            log = {"log": head["log"]}
        elif "unfinished" in head:
            state, stamp = head["unfinished"], head["unfinished"]["stamp"]
            await write(collection, [*share(key, head["log"], head["revision"], state, stamp)])
        elif behind := [event for event in events if event["order"] > head["revision"]]:
            await write(collection, [advance(behind[0], now, behind[0]["stamp"])])
        elif head["expires_at"] is not None and head["expires_at"] <= now:
            return None
        else:
            end = _without_gaps(events, head["revision"])
            wanted = head["revision"] - after
            if limit is not None:
                wanted = min(wanted, limit)
            if since is not None or len(end) >= wanted:
                return head, end
    raise StoreUnavailable("MongoDB: the session changes faster than it can be read; try again.")


def _without_gaps(events: Sequence[Document], last: int) -> Sequence[Document]:
    """Return the last events without a gap.

    Events before a gap are older than the selected ones, or are being removed.
    """
    start = len(events)
    while start and events[start - 1]["order"] == last - (len(events) - start):
        start -= 1
    return events[start:]


async def read_values(collection: Collection, scopes: Iterable[str]) -> dict[str, dict[str, bytes]]:
    """Return the state of users and apps by scope."""
    wanted = list(scopes)
    found: dict[str, dict[str, bytes]] = {}
    for start in range(0, len(wanted), SCOPES_AT_ONCE):
        query = {"scope": {"$in": wanted[start : start + SCOPES_AT_ONCE]}}
        for value in await collection.find(query, batch_size=ALL).to_list():
            found.setdefault(value["scope"], {})[value["name"]] = value["value"]
    return found
