"""Sessions in one DynamoDB table.

An append is one `TransactWriteItems` with a condition on the head. A read is a `TransactGetItems` for head and
state, and a concurrent `Query` for events. An event is an item, and so is each scope of state, with an attribute
for each key. See `keys.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from typing_extensions import override

from ..errors import CorruptSession
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
from ..uri import SessionURI
from .cleanup import Cleanup
from .client import Backoff, Client
from .items import (
    condition,
    event_items,
    event_replacements,
    expiry_attributes,
    head_attributes,
    head_of,
    number,
    state_attributes,
    state_of,
    state_updates,
    timestamp,
    value_replacements,
)
from .keys import DELETED, Item, Keys, decode_id, due_at, indexed_session, text
from .log import EventMissing, LogReader
from .options import Options, parse_options
from .setup import check_permissions, check_table, create_table, is_missing
from .table import Action, ConditionFailed, Table

REMEMBERED_TTLS = 10_000
"""Sessions whose TTL is cached. Without it, an append takes one more request."""
CONCURRENT_REPLACEMENTS = 8
VISIBLE_WITHIN = 2.0
"""Seconds within which a query must see a transaction that another read has seen."""


class DynamoDBStore(SessionStore):
    """A `SessionStore` in a DynamoDB table."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._table = Table(Client(options))
        self._cleanup = Cleanup(self._table)
        self._checked = False
        self._ttls: dict[str, int] = {}
        self._last_ttl = 0

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open `scheme://table[/prefix]?region=…`. The SDK finds the credentials.

        `scheme://key:secret@table?endpoint_url=…` is for emulators.
        """
        return cls(parse_options(uri))

    @property
    @override
    def location(self) -> str:
        """Table and prefix, and the endpoint or region that the URI names."""
        return self._options.location

    @override
    async def missing(self) -> str | None:
        if await is_missing(self._table):
            return f"DynamoDB table {self.location} does not exist"
        return None

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        keys = await self._keys(key)
        expires_at = next_expiry(None, ttl=ttl, now=now)
        head, due = Head(key, Position(incarnation, 0), now, ttl, expires_at), due_at(expires_at)
        own = {"incarnation": {"S": incarnation}} | state_attributes(state.session)
        free = condition("attribute_not_exists(pk) OR expires_at <= :now", now=number(now))
        try:
            await self._table.transact(
                ("Put", {"Item": keys.head | head_attributes(head, due=due)} | free),
                ("Put", {"Item": keys.state | own}),
                ("Put", {"Item": keys.index_entry(due, incarnation)}),
                *([("Put", {"Item": keys.named_user(key.user_id)})] if state.user else []),
                *_shared_updates(keys, key.user_id, state),
            )
        except ConditionFailed as failed:
            repeated = failed.item and text(failed.item, "incarnation") == incarnation
            record = await self.load(key, now=now, limit=0) if repeated else None
            if record is None:
                raise AlreadyExists from None
            return record
        self._written(keys, head, now)
        user, app = await self._table.get(keys.user_state, keys.app_state)
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
        keys = await self._keys(key)
        backoff = Backoff(VISIBLE_WITHIN)
        while True:
            log = LogReader(self._table, keys.events_partition, after=after_revision, limit=limit)
            (found, own, user, app), _ = await asyncio.gather(
                self._table.get(keys.head, keys.state, keys.user_state, keys.app_state),
                log.read_page(),
            )
            head = found and head_of(found, key.app_name)
            if not head or head.expired(now):
                return None
            self._remember_ttl(head)
            after = after_revision
            if limit is not None:
                after = max(after, head.position.revision - limit)
            try:
                events = await log.read_back(head.position, after=after, since=since)
            except EventMissing as missing:
                if not await backoff.pause():
                    raise _damaged(key, missing) from None
                continue
            state = ScopedState(state_of(app), state_of(user), state_of(own))
            return SessionRecord(head, state, events)

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
        keys = await self._keys(key)
        position = Position(expected.incarnation, expected.revision + 1)
        stored = StoredEvent(position.revision, timestamp, event)
        items = event_items(keys.events_partition, expected.incarnation, stored)
        others = [
            *(("Put", {"Item": item}) for item in items),
            *state_updates(keys.state, state.session),
            *_shared_updates(keys, key.user_id, state),
        ]
        # The caller does not pass the TTL of the session. If it is not cached, the refusal contains it.
        ttl = self._ttls.get(expected.incarnation, self._last_ttl)
        expires_at = next_expiry(None, ttl=ttl, now=now)
        while True:
            head = Head(key, position, timestamp, ttl, expires_at)
            try:
                await self._table.transact(_advance(keys, head, now), *others)
            except ConditionFailed as failed:
                found = failed.item and head_of(failed.item, key.app_name)
                if not found or found.expired(now):
                    raise NotFound from None
                if found.position != expected:
                    raise Stale from None
                ttl = found.ttl
                expires_at = next_expiry(found.expires_at, ttl=ttl, now=now)
                continue
            self._written(keys, head, now)
            return head

    @override
    async def rewrite(self, old: SessionRecord, new: SessionRecord) -> None:
        keys = await self._keys(old.head.key)
        incarnation = old.head.position.incarnation
        replacements = [
            *event_replacements(keys.events_partition, incarnation, new.events),
            *value_replacements(keys.state, old.state.session, new.state.session, incarnation),
            *value_replacements(keys.user_state, old.state.user, new.state.user),
            *value_replacements(keys.app_state, old.state.app, new.state.app),
        ]
        for start in range(0, len(replacements), CONCURRENT_REPLACEMENTS):
            some = replacements[start : start + CONCURRENT_REPLACEMENTS]
            await asyncio.gather(*(self._replace(*actions) for actions in some))

    async def _replace(self, *actions: Action) -> None:
        with suppress(ConditionFailed):  # it was changed or deleted meanwhile
            await self._table.transact(*actions)

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        keys = await self._keys(SessionKey(app_name, user_id or "", ""))
        app, items = await asyncio.gather(
            self._table.get_one(keys.app_state),
            self._items_of_app(keys) if user_id is None else self._items_of_user(keys),
        )
        app_state, by_key = state_of(app), {_key(item): item for item in items}
        records = []
        for (pk, sk), item in by_key.items():
            kind, _, session = sk.partition("/")
            head = head_of(item, app_name) if kind == "head" else None
            if head and not head.expired(now):
                self._remember_ttl(head)
                own = by_key.get((pk, f"state/{session}"))
                if own and text(own, "incarnation") != head.position.incarnation:
                    own = None
                user = by_key.get((pk, "state"))
                state = ScopedState(app_state, state_of(user), state_of(own))
                records.append(SessionRecord(head, state))
        return records

    @override
    async def delete(self, key: SessionKey) -> None:
        keys = await self._keys(key)
        found = await self._table.get_one(keys.head)
        while found:
            incarnation, due = text(found, "incarnation"), text(found, "due")
            # A session without events needs no cleanup.
            empty = found["revision"] == number(0)
            deleted = keys.index_entry(DELETED, incarnation)
            unchanged = condition(
                "incarnation = :incarnation AND revision = :revision AND due = :due",
                **{name: found[name] for name in ("incarnation", "revision", "due")},
            )
            try:
                await self._table.transact(
                    ("Delete", {"Key": keys.head} | unchanged),
                    ("Delete", {"Key": keys.index_entry(due, incarnation)}),
                    ("Delete", {"Key": keys.state}) if empty else ("Put", {"Item": deleted}),
                )
            except ConditionFailed as failed:
                found = failed.item
                continue
            if not empty:
                await self._cleanup.remove(keys, incarnation, deleted)
            return

    @override
    async def lease(self, key: SessionKey, *, holder: str, now: float, ttl: int) -> bool:
        lease = (await self._keys(key)).head | {"holder": {"S": holder}}
        free = condition(
            "attribute_not_exists(pk) OR expires_at <= :now OR holder = :holder",
            now=number(now),
            holder=lease["holder"],
        )
        return await self._table.put(lease | expiry_attributes(now + ttl), free)

    @override
    async def release(self, key: SessionKey, *, holder: str) -> None:
        head = (await self._keys(key)).head
        await self._table.delete(head, condition("holder = :holder", holder={"S": holder}))

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        keys = await self._keys(SessionKey(app_name, user_id, ""))
        return state_of(await self._table.get_one(keys.user_state))

    @override
    async def app_state(self, app_name: str) -> Mapping[str, bytes]:
        keys = await self._keys(SessionKey(app_name, "", ""))
        return state_of(await self._table.get_one(keys.app_state))

    @override
    async def users(self, app_name: str) -> AsyncIterator[str]:
        """Yield the users of the index of sessions, then those whose sessions were removed.

        A user is left out if only a digest of the id is known: if it is long and DynamoDB has removed the heads.
        """
        keys = await self._keys(SessionKey(app_name, "", ""))
        seen = set()
        async for entries in self._table.pages(keys.index_partition):
            for entry in entries:
                found, _ = indexed_session(self._options.prefix, entry)
                user = decode_id(found.user)
                if user is None and (head := await self._table.get_one(found.head)):
                    user = text(head, "user_id")
                if user is not None and user not in seen:
                    seen.add(user)
                    yield user
        async for items in self._table.pages(keys.users_partition):
            for item in items:
                if (user := text(item, "user_id")) not in seen:
                    yield user

    @override
    async def erase(self, app_name: str, user_id: str | None) -> int:
        keys = await self._keys(SessionKey(app_name, user_id or "", ""))
        if user_id is None:
            await self._table.delete_many([keys.app_state])
            return 0
        items = await self._items_of_user(keys)
        kinds = [text(item, "sk").partition("/") for item in items]
        sessions = {session for _, separator, session in kinds if separator}
        heads = [_key_of(item) for item in items if "incarnation" in item and "due" in item]
        await self._table.delete_many(heads)  # first, so that no writer adds to a session
        for session in sessions:
            found = Keys(self._options.prefix, keys.app, keys.user, session)
            async for events in self._table.pages(
                found.events_partition, ProjectionExpression="pk, sk"
            ):
                await self._table.delete_many(events)
        async for entries in self._table.pages(keys.index_partition):
            own = [
                entry
                for entry in entries
                if indexed_session(self._options.prefix, entry)[0].user == keys.user
            ]
            await self._table.delete_many(own)
        rest = [_key_of(item) for item in items]
        await self._table.delete_many([*rest, _key_of(keys.named_user(user_id))])
        return len(heads)

    @override
    async def ping(self) -> None:
        await check_table(self._table)
        await check_permissions(self._table)

    @override
    async def prepare(self) -> None:
        """Create the table if it does not exist."""
        await create_table(self._table)

    @override
    async def close(self) -> None:
        await self._cleanup.stop()
        await self._table.client.close()

    async def _keys(self, key: SessionKey) -> Keys:
        """Return the keys of a session's items. The first call checks the table."""
        if not self._checked:
            await check_table(self._table)
            self._checked = True
        return Keys.of(self._options.prefix, key)

    def _written(self, keys: Keys, head: Head, now: float) -> None:
        self._remember_ttl(head)
        self._cleanup.start(keys.app, now)

    def _remember_ttl(self, head: Head) -> None:
        if len(self._ttls) >= REMEMBERED_TTLS:
            self._ttls = {}
        self._ttls[head.position.incarnation] = self._last_ttl = head.ttl

    async def _items_of_user(self, keys: Keys) -> Sequence[Item]:
        """Return the heads and states of one user."""
        pages = [items async for items in self._table.pages(keys.user_partition)]
        return [item for items in pages for item in items]

    async def _items_of_app(self, keys: Keys) -> Sequence[Item]:
        """Return the heads and states of all users of an app."""
        wanted: dict[tuple[str, str], Item] = {}
        async for entries in self._table.pages(keys.index_partition):
            for entry in entries:
                found, _ = indexed_session(self._options.prefix, entry)
                for key in (found.head, found.state, found.user_state):
                    wanted[_key(key)] = key
        return await self._table.get_many(list(wanted.values()))


def _advance(keys: Keys, head: Head, now: float) -> Action:
    """Return the action that advances a head by one event, if it is at the writer's position.

    The expiry must not move back if the clock of this writer is slow.
    """
    update = "SET revision = :revision, updated_at = :updated_at"
    check = "incarnation = :incarnation AND revision = :before AND lifetime = :lifetime"
    values: dict[str, Any] = {
        "incarnation": {"S": head.position.incarnation},
        "before": number(head.position.revision - 1),
        "revision": number(head.position.revision),
        "updated_at": timestamp(head.updated_at),
        "lifetime": number(head.ttl),
    }
    if head.expires_at is None:
        check += " AND attribute_not_exists(expires_at)"
    else:
        update += ", expires_at = :expires_at, purge_at = :purge_at"
        check += " AND expires_at > :now AND expires_at <= :expires_at"
        values |= expiry_attributes(head.expires_at) | {"now": number(now)}
    return "Update", {"Key": keys.head, "UpdateExpression": update} | condition(check, **values)


def _shared_updates(keys: Keys, user_id: str, state: ScopedState) -> Sequence[Action]:
    """Return the actions that change the state of the user and of the app."""
    return [
        *state_updates(keys.user_state, state.user, user_id={"S": user_id}),
        *state_updates(keys.app_state, state.app),
    ]


def _damaged(key: SessionKey, missing: EventMissing) -> CorruptSession:
    return CorruptSession(
        f"Session {key.session_id!r} of user {key.user_id!r} in app {key.app_name!r} is damaged:"
        f" {missing}."
    )


def _key_of(found: Item) -> Item:
    return {name: found[name] for name in ("pk", "sk")}


def _key(item: Item) -> tuple[str, str]:
    return text(item, "pk"), text(item, "sk")
