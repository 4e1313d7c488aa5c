"""Sessions in a bucket of Google Cloud Storage: no server to run, and nothing to pay while nobody talks.

Names of objects, with ids and keys percent-encoded (`=`), or hashed where they are long (`~`):

    app=<app>/user=<user>/session=<session>/<incarnation>/0000000042   event 42, with the state that it brings
    app=<app>/user=<user>/session=<session>/<incarnation>/0000000001-0000000100-<random>    a segment: 1 to 100
    app=<app>/user=<user>/session=<session>/~                   the head: see `Base`
    app=<app>/user=<user>/state/key=<key>                       a value of user state, with its stamp
    app=<app>/state/key=<key>                                   a value of app state, likewise

*The log commits by itself.* An event is an object that is written only if there is none of its name: of two
writers with the same copy one wins. The state of a session is the state in the head and what the
events behind it bring; nothing but an event is written to change it. Only now and then, when a hundred
events have come together, they are put into a segment and the head is moved up to them.

*State that sessions share* travels in the event, and is then written key by key, with the time at which the
service took the event as its stamp. An older stamp never replaces a newer one, so it can be written
any number of times: whoever reads an event whose writer was killed in between finishes the job first.

*What has been compacted is deleted a while later*, by the next compaction. So a writer that began before
with an old copy, and finds the name of its event free again, also finds that the head has moved.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Self
from urllib.parse import urlsplit

from typing_extensions import override

from ..errors import ConfigurationError, CorruptSession
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
from ..uri import SessionURI, positive
from .bucket import Bucket, Gone, Item, connector
from .housekeeping import Housekeeping
from .log import Log, View
from .names import Names, event_of, has_head, head_of, state_of
from .records import Base, Entry, keep_until
from .shared import Shared, Values

logger = logging.getLogger(__name__)

EMULATOR = "STORAGE_EMULATOR_HOST"


class GCSStore(SessionStore):
    """A `SessionStore` in a bucket. See `from_uri` for its options."""

    def __init__(self, bucket: Bucket, *, prefix: str = "") -> None:
        self._bucket = bucket
        self._names = Names(prefix)
        self._log = Log(bucket)
        self._shared = Shared(bucket, self._names)
        self._housekeeping = Housekeeping(bucket, self._names, self._log, self._shared)

    @classmethod
    @override
    def from_uri(cls, uri: SessionURI) -> Self:
        """Open `scheme://bucket[/prefix]`, or `scheme+http://host:port/bucket[/prefix]`.

        With `+http`, or with STORAGE_EMULATOR_HOST in the environment, it is an emulator, and nobody is
        asked for credentials. Options: `project`, `credentials` (a file with the key of a service
        account), `endpoint` (https://…), `timeout` and `max_connections`.
        """
        take = uri.options.take
        emulated = uri.variant == "+http"
        first, _, rest = uri.path.strip("/").partition("/")
        name, prefix = (first, rest) if emulated else (uri.hosts, uri.path.strip("/"))
        endpoint = take("endpoint", _endpoint, "")
        if emulated:
            endpoint = f"http://{uri.hosts}"
        elif not endpoint and (host := os.environ.get(EMULATOR)):
            endpoint = host if "://" in host else f"http://{host}"
            emulated = True
        if not name:
            raise ConfigurationError(
                f"The session URI names no bucket: write {uri.scheme}://"
                f"{'host:port/' if uri.variant else ''}bucket."
            )
        if uri.username or uri.password:
            raise ConfigurationError(
                "Google Cloud Storage takes no user and password in the session URI: name a key file"
                " with the option credentials, or set GOOGLE_APPLICATION_CREDENTIALS."
            )
        threads = int(take("max_connections", positive, 32.0))
        connect = connector(
            name,
            endpoint=endpoint,
            emulated=emulated,
            project=take("project", str, None),
            key_file=take("credentials", str, None),
            threads=threads,
        )
        host = f"{urlsplit(endpoint).netloc}/" if endpoint else ""
        bucket = Bucket(
            connect,
            location=f"{host}{name}{f'/{prefix}' if prefix else ''}",
            timeout=take("timeout", positive, 5.0),
            threads=threads,
        )
        return cls(bucket, prefix=prefix)

    @property
    @override
    def location(self) -> str:
        """The bucket and the prefix, behind the host if it is not Google's."""
        return self._bucket.location

    @override
    async def create(
        self, key: SessionKey, *, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        return await self._bucket.run(self._create, key, incarnation, state, now, ttl)

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
        return await self._bucket.run(self._load, key, now, after_revision, limit, since)

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
        stored = StoredEvent(expected.revision + 1, timestamp, event)
        return await self._bucket.run(self._append, key, expected, stored, state, now)

    @override
    async def list(
        self, app_name: str, user_id: str | None, *, now: float
    ) -> Sequence[SessionRecord]:
        return await self._bucket.run(self._list, app_name, user_id, now)

    @override
    async def delete(self, key: SessionKey) -> None:
        await self._bucket.run(self._housekeeping.delete, self._names.session(key))

    @override
    async def user_state(self, app_name: str, user_id: str) -> Mapping[str, bytes]:
        values = await self._bucket.run(self._shared.read, self._names.user(app_name, user_id))
        return _plain(values)

    @override
    async def ping(self) -> None:
        await self._bucket.run(self._ping)

    @override
    async def close(self) -> None:
        self._log.seen.clear()
        self._shared.seen.clear()
        await self._bucket.close()

    # Operations. Each runs in a thread.

    def _create(
        self, key: SessionKey, incarnation: str, state: ScopedState, now: float, ttl: int
    ) -> SessionRecord:
        folder = self._names.session(key)
        head = Head(key, Position(incarnation, 0), now, ttl, next_expiry(None, ttl=ttl, now=now))
        shared = ScopedState(state.app, state.user)
        base = Base(head, state.session, shared, keep_until=keep_until(head))
        put = partial(self._bucket.put, head_of(folder), base.encode(), keep_until=base.keep_until)
        replaced = 0
        for _ in self._bucket.patiently():
            item, app, user = self._shared.beside(partial(put, generation=replaced), key)
            if item:
                break
            found = self._log.look(folder)
            if found is None:
                replaced = 0
            elif found.head.expired(now):
                replaced = found.item.generation
            elif found.head.position.incarnation == incarnation:
                return _stored(found, *self._settled(folder, found, app, user))
            else:
                raise AlreadyExists
        view = View(item, base, head, state.session, {})
        app, user = self._settled(folder, view, app, user)
        if replaced:
            self._housekeeping.sweep_later(folder)
        self._housekeeping.purge_some(folder, now)
        return _stored(view, app, user)

    def _load(
        self,
        key: SessionKey,
        now: float,
        after: int,
        limit: int | None,
        since: float | None,
    ) -> SessionRecord | None:
        folder = self._names.session(key)
        read = partial(self._log.read, folder, after, limit, since)
        (view, events), app, user = self._shared.beside(read, key)
        if view is None or view.head.expired(now):
            self._log.forget(folder)
            if view:
                self._housekeeping.expire_later(folder, view, now)
            return None
        return _stored(view, *self._settled(folder, view, app, user), events)

    def _append(
        self,
        key: SessionKey,
        expected: Position,
        event: StoredEvent,
        state: ScopedState,
        now: float,
    ) -> Head:
        folder, bucket = self._names.session(key), self._bucket
        view = self._log.seen.get(folder)
        if view is None or view.head.position != expected or view.head.expired(now):
            view = self._expected(key, expected, now)
            self._settled(folder, view)
        old = view.head
        head = replace(
            old,
            position=Position(expected.incarnation, event.revision),
            updated_at=event.timestamp,
            expires_at=next_expiry(old.expires_at, ttl=old.ttl, now=now),
        )
        name = event_of(folder, expected.incarnation, event.revision)
        content = Entry(event, head.expires_at, state).encode()
        put = partial(bucket.put, name, content, keep_until=keep_until(head))
        item, current = bucket.together(put, partial(bucket.get, head_of(folder)))
        if item is None:
            self._log.forget(folder)
            self._expected(key, expected, now)
            raise Stale  # the event that took its place has been deleted with the session
        if current is None or current.generation != view.item.generation:
            view = self._confirm(key, expected, event, item, now)
        view = View(view.item, view.base, head, {**view.state, **state.session}, {})
        self._shared.write(self._shared.brought(key, item, state))
        self._log.remember(folder, view)
        self._housekeeping.after_append(folder, view)
        return head

    def _expected(self, key: SessionKey, expected: Position, now: float) -> View:
        """Return the session if it is live and where the writer expects it."""
        folder = self._names.session(key)
        view = self._log.look(folder, after=expected.revision)
        if view is None:
            self._bucket.find(folder, limit=1)  # which says so if it is the bucket that is missing
            raise NotFound
        if view.head.expired(now):
            raise NotFound
        if view.head.position != expected:
            raise Stale
        return view

    def _confirm(
        self, key: SessionKey, expected: Position, event: StoredEvent, item: Item, now: float
    ) -> View:
        """Return the session if an event counts that was stored while the head changed.

        If not, the event is taken back: the session was deleted before, or the event's name was free
        only because the one that had it was compacted long ago.
        """
        folder = self._names.session(key)
        self._log.forget(folder)
        view, events = self._log.read(folder, expected.revision, None, None)
        live = view is not None and not view.head.expired(now)
        if (
            view
            and live
            and view.head.position.incarnation == expected.incarnation
            and [*events[:1]] == [event]
        ):
            return view
        self._bucket.delete(item)
        raise Stale if live else NotFound

    def _list(self, app_name: str, user_id: str | None, now: float) -> Sequence[SessionRecord]:
        """List all objects of a user or an app: they come with what is needed of them."""
        bucket, names, app_folder = self._bucket, self._names, self._names.app(app_name)
        owner = f"{app_folder}user" if user_id is None else names.user(app_name, user_id)
        find, read = partial(bucket.find, owner), partial(self._shared.read, app_folder)
        items, app = bucket.together(find, read)
        views, users = [], {}
        for folder, found in names.by_folder(items).items():
            try:
                view = self._listed(folder, found)
            except CorruptSession as error:
                logger.warning("A session is left out of a list: %s", error)
                continue
            if view is not None and not view.head.expired(now):
                views.append((folder, view))
            else:
                self._housekeeping.expire_later(folder, view, now)
        for folder, view in views:
            user_id = view.head.key.user_id
            if user_id not in users:
                state = state_of(names.user(app_name, user_id))
                users[user_id] = self._shared.decoded(
                    [item for item in items if item.name.startswith(state)]
                )
            app, users[user_id] = self._settled(folder, view, app, users[user_id])
        return [_stored(view, app, users[view.head.key.user_id]) for _, view in views]

    def _listed(self, folder: str, items: Sequence[Item]) -> View | None:
        """Return the session that these objects of a folder are, if it has a head."""
        if not has_head(folder, items):
            return None
        try:
            return self._log.view(folder, items, None)
        except Gone:
            return self._log.look(folder)

    def _settled(self, folder: str, view: View, *shared: Values) -> tuple[Values, Values]:
        """Bring shared state up to a session that was read, and remember that."""
        app, user = self._shared.settle(view, *shared)
        self._log.remember(folder, view)
        return app, user

    def _ping(self) -> None:
        """Try all that the store does, on an object that is not there and will not be."""
        bucket, name = self._bucket, f"{self._names.root}ping"
        bucket.together(
            partial(bucket.find, name, limit=1),
            partial(bucket.get, name),
            partial(bucket.put, name, b"", generation=1),
            partial(bucket.delete, Item(name, 1, 0)),
        )


def _stored(
    view: View, app: Values, user: Values, events: Sequence[StoredEvent] = ()
) -> SessionRecord:
    return SessionRecord(view.head, ScopedState(_plain(app), _plain(user), view.state), events)


def _plain(values: Values) -> dict[str, bytes]:
    return {key: value.value for key, value in values.items()}


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.netloc or parts.username:
        raise ValueError("write https://host, or use the scheme with +http for an emulator")
    return text.rstrip("/")
