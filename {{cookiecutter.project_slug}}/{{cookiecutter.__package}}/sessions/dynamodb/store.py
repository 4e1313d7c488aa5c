"""Sessions in one DynamoDB table: one transaction an append, two requests at once a read.

An append is a `TransactWriteItems` whose condition stands on the session's head. Events are items of
their own, state is an item for each scope with an attribute for each key. A read takes head and state
from a `TransactGetItems`, events from a `Query` at the same time, and asks again for what one of them
saw and the other did not. See `items.py` for the keys.

Nothing that belongs to a session is touched again as time goes on, so events have no time to live that
would have to slide. What may be left over of a session is found through the index of its app, which
also is the list of the app's sessions: an entry says since when to look, and is the last to go.
"""

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self
from urllib.parse import urlsplit

from typing_extensions import override

from ..errors import ConfigurationError, CorruptSession, SessionStoreError
from ..store import (
    AlreadyExists,
    Head,
    NotFound,
    Position,
    ScopedState,
    SessionKey,
    SessionRecord,
    SessionStore,
    Stale,
    StoredEvent,
    next_expiry,
)
from ..uri import SessionURI, boolean, positive
from .errors import NO_TABLE, Answered
from .items import (
    DELETED,
    GRACE,
    Events,
    Item,
    Layout,
    Names,
    condition,
    due_after,
    event_items,
    event_name,
    head_attributes,
    head_of,
    index_entry,
    key_of,
    name,
    number,
    state_attributes,
    state_of,
    state_update,
    text,
)
from .table import Access, Patience, Refused, Table

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
SWEEP_EVERY = 60.0
"""Seconds between two looks for what is left over of an app's sessions."""
SWEEP_BATCH = 25
KNOWN_TTLS = 10_000
"""Sessions whose time to live is remembered; to have forgotten one costs one request."""
FIRST_PAGE, LARGEST_PAGE = 32, 1_000
"""Events that are asked for when it is not known how many will do: at first, and at most."""
SEEN_WITHIN = 2.0
"""Seconds after which what a transaction has written must be there for all kinds of reads."""


class DynamoDBStore(SessionStore):
    """A `SessionStore` in DynamoDB. See `from_uri` for its options."""

    def __init__(
        self, table: Table, *, location: str, prefix: str, create_table: bool = False
    ) -> None:
        self._table = table
        self._location = location
        self._layout = Layout(prefix)
        self._create_table = create_table
        self._checked = False
        self._ttls: dict[str, int] = {}
        self._last_ttl = 0
        self._next_sweep: dict[str, float] = {}
        self._sweeps: set[asyncio.Task[None]] = set()

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Name a table: `scheme://table[/prefix]?region=…`, credentials being the SDK's business.

        `scheme://key:secret@table?endpoint_url=…` is for emulators: it keeps the SDK from looking for
        credentials. Options: `region`, `endpoint_url`, `profile`, `create_table`, `timeout` and
        `max_connections`.
        """
        take = uri.options.take
        table, prefix = uri.hosts, uri.path.strip("/") or "sessions"
        if not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", table):
            raise ConfigurationError(
                f"{table!r} is not the name of a DynamoDB table: write {uri.scheme}://table, with 3 to"
                " 255 letters, digits, '_', '-' and '.'."
            )
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", prefix):
            raise ConfigurationError(
                f"The prefix {prefix!r} in the session URI is not one: take at most 100 letters,"
                " digits, '_', '-' and '.'."
            )
        if (uri.username is None) != (uri.password is None):
            raise ConfigurationError(
                "The session URI has half of the credentials: write key:secret@table, or leave them"
                " to the SDK."
            )
        access = Access(
            region=take("region", str, None),
            endpoint_url=take("endpoint_url", _endpoint, None),
            profile=take("profile", str, None),
            access_key=uri.username,
            secret_key=uri.password,
            timeout=take("timeout", positive, 5.0),
            max_connections=take("max_connections", int, 64),
        )
        location = uri.location.rstrip("/")
        if access.endpoint_url is not None:
            location += f" ({urlsplit(access.endpoint_url).netloc})"
        elif access.region is not None:
            location += f" ({access.region})"
        return cls(
            Table(table, access, location=location),
            location=location,
            prefix=prefix,
            create_table=take("create_table", boolean, False),
        )

    @property
    @override
    def location(self) -> str:
        """Table and prefix, and the region or endpoint that the URI names."""
        return self._location

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        await self._ready()
        names = Names.of(key)
        expires_at = next_expiry(None, ttl=ttl, now=now)
        head, due = Head(key, Position(incarnation, 0), now, ttl, expires_at), due_after(expires_at)
        stored = self._layout.head(names) | head_attributes(head, listed=due)
        own = (
            self._layout.state(names)
            | {"incarnation": {"S": incarnation}}
            | state_attributes(state.session)
        )
        free = condition("attribute_not_exists(pk) OR expires <= :now", now=number(now))
        try:
            await self._table.transact(
                ("Put", {"Item": stored} | free),
                ("Put", {"Item": own}),
                ("Put", {"Item": self._layout.indexed(names, incarnation, due)}),
                *self._shared_updates(names, state),
            )
        except Refused as refused:
            if not refused.found or text(refused.found, "incarnation") != incarnation:
                raise AlreadyExists from None
            again = await self.load(key, now=now, limit=0)
            if again is None:
                raise AlreadyExists from None
            return again
        self._know(incarnation, ttl)
        self._sweep_soon(names.app, now)
        user, app = await self._table.get(
            self._layout.user_state(names), self._layout.app_state(names)
        )
        return SessionRecord(head, ScopedState(state_of(app), state_of(user), dict(state.session)))

    @override
    async def load(
        self,
        key: SessionKey,
        *,
        now: float,
        after_revision: int = 0,
        limit: int | None = None,
        since: float | None = None,
    ) -> SessionRecord | None:
        await self._ready()
        names = Names.of(key)
        page = FIRST_PAGE if since is not None else None
        if limit is not None:
            page = min(limit, page or LARGEST_PAGE)
        while True:
            events = Events()
            (found, own, user, app), _ = await asyncio.gather(
                self._table.get(
                    self._layout.head(names),
                    self._layout.state(names),
                    self._layout.user_state(names),
                    self._layout.app_state(names),
                ),
                self._read_events(events, names, after_revision, None, page),
            )
            head = found and head_of(found, key.app_name, key.user_id)
            if not head or head.expired(now):
                return None
            first = after_revision
            if limit is not None:
                first = max(first, head.position.revision - limit)
            log = await self._log(events, names, head, first, since, page)
            if log is not None:
                self._know(head.position.incarnation, head.ttl)
                state = ScopedState(state_of(app), state_of(user), state_of(own))
                return SessionRecord(head, state, log)

    @override
    async def append(
        self,
        key: SessionKey,
        *,
        expected: Position,
        event: bytes,
        timestamp: float,
        state: ScopedState,
        now: float,
    ) -> Head:
        await self._ready()
        names = Names.of(key)
        position = Position(expected.incarnation, expected.revision + 1)
        stored = StoredEvent(position.revision, timestamp, event)
        others = [
            *_puts(event_items(self._layout.events(names), expected.incarnation, stored)),
            *_updates(self._layout.state(names), state.session),
            *self._shared_updates(names, state),
        ]
        # Nobody tells an append what the session's ttl is: where it was forgotten, the refusal does.
        ttl = self._ttls.get(expected.incarnation, self._last_ttl)
        expires_at = next_expiry(None, ttl=ttl, now=now)
        while True:
            head = Head(key, position, timestamp, ttl, expires_at)
            try:
                await self._table.transact(self._advance(names, head, expected, now), *others)
            except Refused as refused:
                found = refused.found and head_of(refused.found, key.app_name)
                if not found or found.expired(now):
                    raise NotFound from None
                if found.position != expected:
                    raise Stale from None
                ttl = found.ttl
                expires_at = next_expiry(found.expires_at, ttl=ttl, now=now)
                continue
            self._know(expected.incarnation, ttl)
            self._sweep_soon(names.app, now)
            return head

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        await self._ready()
        names = Names(name(app_name), name(user_id or ""), "")
        app, items = await asyncio.gather(
            self._table.get_one(self._layout.app_state(names)),
            self._items_of_app(names.app) if user_id is None else self._items_of_user(names),
        )
        app_state, sessions = state_of(app), []
        for (pk, sk), item in items.items():
            kind, _, session = sk.partition("/")
            head = head_of(item, app_name, user_id) if kind == "head" else None
            if head and not head.expired(now):
                self._know(head.position.incarnation, head.ttl)
                own = items.get((pk, f"state/{session}"))
                if own and text(own, "incarnation") != head.position.incarnation:
                    own = None
                user = items.get((pk, "state"))
                state = ScopedState(app_state, state_of(user), state_of(own))
                sessions.append(SessionRecord(head, state))
        return sessions

    @override
    async def delete(self, key: SessionKey) -> None:
        await self._ready()
        names = Names.of(key)
        found = await self._table.get_one(self._layout.head(names))
        while found:
            incarnation, listed = text(found, "incarnation"), text(found, "listed")
            left_over = self._layout.indexed(names, incarnation, DELETED)
            same = condition(
                "incarnation = :incarnation AND listed = :listed",
                incarnation=found["incarnation"],
                listed=found["listed"],
            )
            try:
                await self._table.transact(
                    ("Delete", {"Key": self._layout.head(names)} | same),
                    ("Delete", {"Key": key_of(self._layout.indexed(names, incarnation, listed))}),
                    ("Put", {"Item": left_over}),
                )
            except Refused as refused:
                found = refused.found
                continue
            await self._remove_rest(names, incarnation, left_over)
            return

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        await self._ready()
        names = Names(name(app_name), name(user_id), "")
        return state_of(await self._table.get_one(self._layout.user_state(names)))

    @override
    async def ping(self) -> None:
        await self._ready()
        await self._check_version()
        await self._table.try_permissions()

    @override
    async def prepare(self) -> None:
        """Create the table where there is none."""
        await self._table.create()
        await self._check_version()

    @override
    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        sweeps = [task for task in self._sweeps if task.get_loop() is loop]
        for task in sweeps:
            task.cancel()
        await asyncio.gather(*sweeps, return_exceptions=True)
        await self._table.close()

    # The table.

    async def _ready(self) -> None:
        """Before anything else, see that the table is there and that it is one of ours."""
        if not self._checked:
            try:
                await self._check_version()
            except Answered as error:
                if error.code != NO_TABLE or not self._create_table:
                    raise
                await self._table.create()
            self._checked = True

    async def _check_version(self) -> None:
        """Refuse a table of the future: only a newer version has reason to write which it is."""
        found = await self._table.get_one(self._layout.version)
        version = int(found["number"]["N"]) if found else SCHEMA_VERSION
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"DynamoDB table {self._location} was written by a newer version of this program"
                f" (schema {version}, this one knows {SCHEMA_VERSION}): upgrade the program, or name"
                " another table."
            )

    # Writing.

    def _advance(self, names: Names, head: Head, expected: Position, now: float) -> Any:
        """Return the action that makes all others hold: it moves the head on, if it stands as expected.

        The session must not end earlier because the clock of this writer is behind.
        """
        attributes = head_attributes(head, listed="")
        update = "SET revision = :next, updated = :updated"
        check = "incarnation = :incarnation AND revision = :revision AND lives = :ttl"
        values = {
            "next": attributes["revision"],
            "updated": attributes["updated"],
            "incarnation": attributes["incarnation"],
            "revision": number(expected.revision),
            "ttl": attributes["lives"],
        }
        if head.expires_at is None:
            check += " AND attribute_not_exists(expires)"
        else:
            update += ", expires = :expires, purge_at = :purge_at"
            check += " AND expires > :now AND expires <= :expires"
            values |= {place: attributes[place] for place in ("expires", "purge_at")}
            values["now"] = number(now)
        key = self._layout.head(names)
        return "Update", {"Key": key, "UpdateExpression": update} | condition(check, **values)

    def _shared_updates(self, names: Names, state: ScopedState) -> Sequence[Any]:
        return [
            *_updates(self._layout.user_state(names), state.user),
            *_updates(self._layout.app_state(names), state.app),
        ]

    def _know(self, incarnation: str, ttl: int) -> None:
        if len(self._ttls) >= KNOWN_TTLS:
            self._ttls = {}
        self._ttls[incarnation] = self._last_ttl = ttl

    # Reading.

    async def _read_events(
        self,
        events: Events,
        names: Names,
        after: int,
        last: int | None,
        page: int | None,
        start: Item | None = None,
    ) -> Item | None:
        """Read a page of events, from the end backwards; return where the next one would start."""
        if page == 0:
            return None
        items, following = await self._table.query(
            self._layout.events(names),
            between=(f"{after + 1:012d}", "~" if last is None else f"{last:012d}0"),
            backwards=True,
            limit=page,
            start=start,
        )
        events.add(items)
        return following

    async def _log(
        self,
        events: Events,
        names: Names,
        head: Head,
        first: int,
        since: float | None,
        page: int | None,
    ) -> Sequence[StoredEvent] | None:
        """Return the events behind `first` up to the head, or None if the session is another by now.

        What has been read so far may lack some: it was one page, it may have the parts of a large
        event only in part, or be from before the head was read. And a query may see the items of a
        transaction a moment later than the transaction that read the head.
        """
        log: list[StoredEvent] = []
        patience = Patience(SEEN_WITHIN)
        last, start = 0, None
        while (wanted := head.position.revision - len(log)) > first:
            event = events.get(replace(head.position, revision=wanted))
            if event is not None:
                if since is not None and event.timestamp < since:
                    break
                log.append(event)
                continue
            if start is None:
                if last == wanted and not await patience.pause():
                    raise CorruptSession(
                        f"Session {head.key.session_id!r} of user {head.key.user_id!r} in app"
                        f" {head.key.app_name!r} is damaged: event {wanted} is missing."
                    )
                if last == wanted and not await self._is_there(names, head):
                    return None
                last = wanted
            page = page and min(2 * page, LARGEST_PAGE)
            start = await self._read_events(events, names, first, last, page, start)
        log.reverse()
        return log

    async def _is_there(self, names: Names, head: Head) -> bool:
        found = await self._table.get_one(self._layout.head(names))
        return found is not None and text(found, "incarnation") == head.position.incarnation

    async def _items_of_user(self, names: Names) -> dict[tuple[str, str], Item]:
        """Return what is in the partition of a user: heads and states."""
        pages = [items async for items in self._table.pages(self._layout.user(names))]
        return {(text(item, "pk"), text(item, "sk")): item for items in pages for item in items}

    async def _items_of_app(self, app: str) -> dict[tuple[str, str], Item]:
        """Return heads and states of all users of an app."""
        keys: dict[tuple[str, str], Item] = {}
        async for entries in self._table.pages(self._layout.index(app)):
            for entry in entries:
                names, _ = index_entry(entry)
                for key in (
                    self._layout.head(names),
                    self._layout.state(names),
                    self._layout.user_state(names),
                ):
                    keys[text(key, "pk"), text(key, "sk")] = key
        found = await self._table.get_many(list(keys.values()))
        return {(text(item, "pk"), text(item, "sk")): item for item in found}

    # What is left over.

    def _sweep_soon(self, app: str, now: float) -> None:
        """Have some of what expired a while ago removed, while nobody waits for it."""
        if time.monotonic() < self._next_sweep.get(app, 0.0):
            return
        if len(self._next_sweep) > KNOWN_TTLS:
            self._next_sweep = {}
        self._next_sweep[app] = time.monotonic() + SWEEP_EVERY
        task = asyncio.create_task(self._sweep(app, now))
        self._sweeps.add(task)
        task.add_done_callback(self._sweeps.discard)

    async def _sweep(self, app: str, now: float) -> None:
        try:
            due, more = await self._table.query(
                self._layout.index(app), between=("0", due_after(now - GRACE)), limit=SWEEP_BATCH
            )
            for entry in due:
                await self._settle(entry, now - GRACE)
            if more:
                self._next_sweep[app] = 0.0
        except SessionStoreError as error:
            logger.info("What has expired is removed later: %s", error)

    async def _settle(self, entry: Item, cutoff: float) -> None:
        """Remove what an entry of the index leads to, or note when to look for it again."""
        names, incarnation = index_entry(entry)
        key, same = self._layout.head(names), {"incarnation": {"S": incarnation}}
        found = await self._table.get_one(key)
        if found is not None and text(found, "incarnation") == incarnation:
            expires_at = head_of(found, "").expires_at
            if expires_at is None or expires_at > cutoff:
                await self._postpone(names, incarnation, found["listed"], entry, expires_at)
                return
            over = condition(
                "incarnation = :incarnation AND expires <= :cutoff", cutoff=number(cutoff), **same
            )
            if not await self._table.delete(key, over):
                return
        await self._remove_rest(names, incarnation, entry)

    async def _postpone(
        self, names: Names, incarnation: str, listed: Any, entry: Item, expires_at: float | None
    ) -> None:
        """Move an entry of the index to when its session will have ended."""
        due = due_after(expires_at)
        same = condition(
            "incarnation = :incarnation AND listed = :listed",
            incarnation={"S": incarnation},
            listed=listed,
            due={"S": due},
        )
        moved = {"Key": self._layout.head(names), "UpdateExpression": "SET listed = :due"}
        # Refused is who comes after a deletion, or after somebody else who does the same.
        with suppress(Refused):
            await self._table.transact(
                ("Update", moved | same),
                ("Delete", {"Key": key_of(entry)}),
                ("Put", {"Item": self._layout.indexed(names, incarnation, due)}),
            )

    async def _remove_rest(self, names: Names, incarnation: str, entry: Item) -> None:
        """Remove the state and the events of a session without a head, and last what leads to them."""
        same = condition("incarnation = :incarnation", incarnation={"S": incarnation})
        await self._table.delete(self._layout.state(names), same)
        async for items in self._table.pages(self._layout.events(names), keys_only=True):
            gone = [item for item in items if event_name(item)[1] == name(incarnation)]
            await self._table.delete_many(gone)
        await self._table.delete_many([entry])


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("write http://host:port or https://host")
    return url


def _puts(items: Sequence[Item]) -> Sequence[Any]:
    return [("Put", {"Item": item}) for item in items]


def _updates(key: Item, state: Mapping[str, bytes]) -> Sequence[Any]:
    return [("Update", {"Key": key} | state_update(state))] if state else []
