"""Sessions in a bucket of Google Cloud Storage. `names.py` has a table of the objects.

*The event commits an append.* It is an object that is created only if its name does not exist, so one of two
writers with the same copy succeeds. The state of a session is that of its head with the changes of later events,
so an append writes nothing else. After a hundred events, the head advances (`compaction.py`).

*Shared state* is part of the event, and is then written key by key (`shared.py`).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Self

from typing_extensions import override

from ..errors import CorruptSession, SessionStoreError
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
from .bucket import Bucket, Item
from .compaction import compact_if_due, rewrite
from .connection import Target
from .deletion import delete, sweep
from .errors import Gone
from .log import SessionLog, SessionView
from .names import Names, event_of, has_head, head_of, is_session, state_of, user_of
from .records import Checkpoint, EventRecord, SharedValue, encode, keep_until
from .shared import Scopes, SharedState

logger = logging.getLogger(__name__)


class GCSStore(SessionStore):
    """A `SessionStore` in a bucket. See `from_uri` for its options."""

    def __init__(self, bucket: Bucket, *, prefix: str = "") -> None:
        self._bucket = bucket
        self._names = Names(prefix)
        self._log = SessionLog(bucket)
        self._shared = SharedState(bucket, self._names)
        self._leases: dict[str, Item] = {}
        """The objects of leases by their holders, who are turns of this process."""

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open `scheme://bucket[/prefix]`, or `scheme+http://host:port/bucket[/prefix]`.

        `+http` is for an emulator, without credentials. Options: `timeout` and `max_connections`.
        """
        target = Target.from_uri(uri)
        return cls(Bucket(target), prefix=target.prefix)

    @property
    @override
    def location(self) -> str:
        """The bucket and the prefix, after the host of an emulator."""
        return self._bucket.location

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        folder, owners = self._names.session(key), self._names.owners(key)
        head = Head(key, Position(incarnation, 0), now, ttl, next_expiry(None, ttl=ttl, now=now))
        checkpoint = Checkpoint(head, state.session, ScopedState(state.app, state.user))
        content, until = encode(checkpoint), keep_until(head)
        put = partial(self._bucket.put, head_of(folder), content, custom_time=until)
        replaced = 0
        began = time.monotonic()
        while True:
            item, scopes = await asyncio.gather(
                put(generation=replaced), self._shared.read(*owners)
            )
            if item:
                break
            found, _ = await self._log.read(folder, limit=0)
            if found and not found.head.expired(now):
                if found.head.position.incarnation != incarnation:
                    raise AlreadyExists
                return await self._settled(folder, found, scopes)
            replaced = found.item.generation if found else 0
            await self._bucket.pause(began)
        if replaced:
            with suppress(SessionStoreError):  # the remains are deleted with the new session
                await sweep(self._bucket, folder)
        view = SessionView(item, checkpoint, head, state.session, {})
        return await self._settled(folder, view, scopes)

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
        folder, owners = self._names.session(key), self._names.owners(key)
        (view, events), scopes = await asyncio.gather(
            self._log.read(folder, after_revision, limit, since), self._shared.read(*owners)
        )
        if view is None or view.head.expired(now):
            self._log.forget(folder)
            return None
        return replace(await self._settled(folder, view, scopes), events=events)

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
        folder = self._names.session(key)
        view = self._log.seen.get(folder)
        if view is None or view.head.position != expected or view.head.expired(now):
            view = await self._expected(key, expected, now)
        stored = StoredEvent(expected.revision + 1, timestamp, event)
        head = replace(
            view.head,
            position=Position(expected.incarnation, stored.revision),
            updated_at=timestamp,
            expires_at=next_expiry(view.head.expires_at, ttl=view.head.ttl, now=now),
        )
        name = event_of(folder, expected.incarnation, stored.revision)
        content = encode(EventRecord(stored, head.expires_at, state))
        item, current = await asyncio.gather(
            self._bucket.put(name, content, custom_time=keep_until(head)),
            self._bucket.get(head_of(folder)),
        )
        if item is None:
            self._log.forget(folder)
            await self._expected(key, expected, now)
            raise Stale  # the event in its place was deleted with the session
        if current is None or current.generation != view.item.generation:
            view = await self._confirmed(key, expected, stored, item, now)
        view = replace(view, head=head, state={**view.state, **state.session})
        await self._shared.write(self._shared.set_by(key, item, state))
        self._log.remember(folder, view)
        await compact_if_due(self._bucket, self._log, self._shared, folder, view)
        return head

    async def _expected(self, key: SessionKey, expected: Position, now: float) -> SessionView:
        """Return the session if it is live and at the expected position."""
        folder = self._names.session(key)
        view, _ = await self._log.read(folder, limit=0)
        if view is None:
            await self._bucket.find(folder)  # fails if the bucket is missing
        if view is None or view.head.expired(now):
            raise NotFound
        if view.head.position != expected:
            raise Stale
        await self._shared.settle(view)
        return view

    async def _confirmed(
        self, key: SessionKey, expected: Position, event: StoredEvent, item: Item, now: float
    ) -> SessionView:
        """Return the session if it includes an event that was stored while the head changed.

        Otherwise the event is deleted: the session was deleted before, or the event in its place was compacted
        long ago.
        """
        folder = self._names.session(key)
        self._log.forget(folder)
        view, events = await self._log.read(folder, expected.revision)
        if view and view.head.expired(now):
            view = None
        same = view and view.head.position.incarnation == expected.incarnation
        if view and same and [*events[:1]] == [event]:
            return view
        await self._bucket.delete(item)
        raise Stale if view else NotFound

    @override
    async def rewrite(self, old: SessionRecord, new: SessionRecord) -> None:
        app, user = self._names.owners(old.head.key)
        with suppress(Gone):  # it was compacted or deleted meanwhile
            folder = self._names.session(old.head.key)
            await rewrite(self._bucket, self._log, self._shared, folder, old, new)
        await self._shared.replace(app, old.state.app, new.state.app)
        await self._shared.replace(user, old.state.user, new.state.user)

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        app = self._names.app(app_name)
        owner = f"{app}user" if user_id is None else self._names.user(app_name, user_id)
        items, scopes = await asyncio.gather(self._bucket.find(owner), self._shared.read(app))
        folders = self._names.by_folder(items)
        sessions = [folder for folder in folders if is_session(folder)]
        views = await asyncio.gather(*(self._listed(each, folders[each]) for each in sessions))
        live = [view for view in views if view and not view.head.expired(now)]
        for view in live:
            _, user = self._names.owners(view.head.key)
            if user not in scopes:
                scopes[user] = await self._shared.read_one(user, folders.get(state_of(user), []))
            await self._shared.settle(view, scopes)
        return [self._record(view, scopes) for view in live]

    async def _listed(self, folder: str, items: Sequence[Item]) -> SessionView | None:
        """Return the session of the objects of a folder, if it exists and is readable."""
        try:
            with suppress(Gone):
                return await self._log.view(folder, items) if has_head(folder, items) else None
            view, _ = await self._log.read(folder, limit=0)
            return view
        except CorruptSession as error:
            logger.warning("A session is omitted from a list: %s", error)
            return None

    @override
    async def delete(self, key: SessionKey) -> None:
        folder = self._names.session(key)
        seen = self._log.seen.pop(folder, None)
        await delete(self._bucket, folder, seen.item if seen else None)

    @override
    async def lease(self, key: SessionKey, *, holder: str, now: float, ttl: int) -> bool:
        name = head_of(self._names.session(key))
        head = Head(key, Position(holder, 0), now, ttl, now + ttl)
        content = encode(Checkpoint(head, {}))
        put = partial(self._bucket.put, name, content, custom_time=keep_until(head))
        known = self._leases.get(holder)
        lease = await put(generation=known.generation if known else 0)
        if lease is None:
            found = await self._bucket.get(name)
            other = found and (await self._bucket.read(found, Checkpoint.decode)).head
            if other and other.position.incarnation != holder and not other.expired(now):
                return False
            lease = await put(generation=found.generation if found else 0)
        if lease is not None:
            self._leases[holder] = lease
        return lease is not None

    @override
    async def release(self, key: SessionKey, *, holder: str) -> None:
        if lease := self._leases.pop(holder, None):
            await self._bucket.delete(lease)

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        return _plain(await self._shared.read_one(self._names.user(app_name, user_id)))

    @override
    async def app_state(self, app_name: str) -> Mapping[str, bytes]:
        return _plain(await self._shared.read_one(self._names.app(app_name)))

    @override
    async def users(self, app_name: str) -> AsyncIterator[str]:
        app = self._names.app(app_name)
        for folder in await self._bucket.folders(f"{app}user"):
            user = user_of(folder)
            if user is None:
                user = await self._user_in(folder)
            if user is not None:
                yield user

    async def _user_in(self, folder: str) -> str | None:
        """Return the user of a folder from its objects."""
        for item in await self._bucket.find(folder):
            with suppress(Gone, CorruptSession):
                if item.name.endswith("/head"):
                    return (await self._bucket.read(item, Checkpoint.decode)).head.key.user_id
                if item.name.startswith(state_of(folder)):
                    return (await self._bucket.read(item, SharedValue.decode)).user_id
        return None

    @override
    async def unlisted(self, app_name: str, user_id: str | None) -> Sequence[str]:
        app, problems = self._names.app(app_name), []
        if user_id is None:
            folders = {state_of(app): await self._bucket.find(state_of(app))}
        else:
            items = await self._bucket.find(self._names.user(app_name, user_id))
            folders = self._names.by_folder(items)
        for folder, items in folders.items():
            try:
                if is_session(folder):
                    await self._log.read(folder, limit=0)
                for item in () if is_session(folder) else items:
                    with suppress(Gone):
                        await self._bucket.read(item, SharedValue.decode)
            except CorruptSession as error:
                problems.append(str(error))
        return problems

    @override
    async def erase(self, app_name: str, user_id: str | None) -> int:
        if user_id is None:
            folder = state_of(self._names.app(app_name))
        else:
            folder = self._names.user(app_name, user_id)
        removed = 0
        while items := await self._bucket.find(folder):
            heads = [item for item in items if item.name.endswith("/head")]
            removed = removed or len(heads)
            await self._bucket.delete_all(heads)  # first, so that no writer adds to a session
            await self._bucket.delete_all(item for item in items if item not in heads)
        for seen in (self._log.seen, self._shared.seen):
            for name in [name for name in seen if name.startswith(folder)]:
                seen.pop(name, None)
        return removed

    @override
    async def ping(self) -> None:
        """Try all kinds of requests on an object that does not exist."""
        bucket, name = self._bucket, f"{self._names.root}ping"
        await asyncio.gather(
            bucket.find(name),
            bucket.get(name),
            bucket.put(name, b"", generation=1),
            bucket.delete(Item(name, 1, 0)),
        )

    @override
    async def close(self) -> None:
        self._log.seen.clear()
        self._shared.seen.clear()
        self._leases.clear()
        await self._bucket.close()

    async def _settled(self, folder: str, view: SessionView, scopes: Scopes) -> SessionRecord:
        """Return a session after its shared state was settled, and cache it."""
        await self._shared.settle(view, scopes)
        self._log.remember(folder, view)
        return self._record(view, scopes)

    def _record(self, view: SessionView, scopes: Scopes) -> SessionRecord:
        app, user = (_plain(scopes[owner]) for owner in self._names.owners(view.head.key))
        return SessionRecord(view.head, ScopedState(app, user, view.state))


def _plain(values: Mapping[str, SharedValue]) -> dict[str, bytes]:
    return {key: value.value for key, value in values.items()}
