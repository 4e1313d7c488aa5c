"""ADK's session contract, written once for every store.

Where ADK's documentation and `InMemorySessionService` define a behaviour, this is that behaviour; the
contract tests run on both. A database adds two things: sessions expire, and a writer whose copy of
the session is no longer current is refused.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions.base_session_service import (
    BaseSessionService,
    GetSessionConfig,
    ListSessionsResponse,
)
from google.adk.sessions.session import Session
from google.adk.sessions.state import State

from .codec import decode_events, decode_state, encode_event, encode_state
from .errors import ConfigurationError, CorruptSession, RefusedValue, TurnTimeout
from .event_cache import EventCache, EventLog, copies
from .in_doubt import InDoubtAppends
from .keys import RESERVED, check_keys
from .session import Cursor, PersistentSession
from .store import (
    AlreadyExists,
    Head,
    NotFound,
    Position,
    ScopedState,
    SessionKey,
    SessionRecord,
    SessionStore,
    Stale,
)
from .ttl import parse_ttl
from .turns import LEASES, Turn, TurnQueue

T = TypeVar("T")

logger = logging.getLogger(__name__)

_missing: ContextVar[SessionKey | None] = ContextVar("missing", default=None)
"""The session that the running task has read last, if there was none."""


class PersistentSessionService(BaseSessionService):
    """A session service over any `SessionStore`.

    Args:
        store: where sessions are kept; closed with the service.
        ttl: seconds that a session lives after its last event; 0 means for ever.
        turns: gives turns on sessions, for `OneTurnAtATime`; by default to all processes.
        recent_events: how many of the last events `get_session` returns if it is called without a
            `config`, as ADK's Runner and its server do; None for all.
        cache_bytes: about how much memory the decoded events of recently used sessions may take.
        description: what `str()` of the service says: scheme, backend, location, ttl.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        ttl: int = 0,
        turns: TurnQueue | None = None,
        recent_events: int | None = None,
        cache_bytes: int = 128 << 20,
        description: str = "",
    ) -> None:
        self.store = store
        self.ttl = ttl
        self.description = description or store.location
        self.turns = turns or TurnQueue(store)
        self.recent_events = recent_events
        self._cache = EventCache(cache_bytes)
        self._in_doubt = InDoubtAppends()

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
        ttl: int | str | None = None,
    ) -> PersistentSession:
        """Create a session; `ttl` (seconds or `30m`) replaces the service's own for this session.

        Raises:
            AlreadyExistsError: the user has a live session of this id. No state was changed.
            RefusedValue: an id or a state value cannot be stored, or the ttl is not one.
        """
        session_id = (session_id or "").strip() or platform_uuid.new_uuid()
        key = _key(app_name, user_id, session_id)
        try:
            seconds = self.ttl if ttl is None else parse_ttl(ttl)
        except ConfigurationError as error:
            raise RefusedValue(str(error)) from None
        was_missing = _missing.get() == key
        _missing.set(None)
        try:
            record = await self.store.create(
                key,
                incarnation=secrets.token_hex(8),
                state=_encode_by_scope(state or {}),
                now=platform_time.get_time(),
                ttl=seconds,
            )
        except AlreadyExists:
            if was_missing and not state:
                # The Runner creates a session that it did not find; another one was quicker.
                session = await self.get_session(
                    app_name=app_name, user_id=user_id, session_id=session_id
                )
                if session is not None:
                    return session
            raise AlreadyExistsError(f"Session with id {session_id} already exists.") from None
        return _session(record, [])

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> PersistentSession | None:
        """Return a session with its merged state, or None if there is none or it has expired.

        The filters of `config` mean what they mean to `InMemorySessionService`: first the last
        `num_recent_events`, of these only the ones after the last one older than `after_timestamp`.
        Without a `config`, the service's `recent_events` counts; an empty one asks for all events.

        Raises:
            CorruptSession: a stored record of this session cannot be read.
        """
        key = _key(app_name, user_id, session_id.strip() if session_id else session_id)
        config = config or GetSessionConfig(num_recent_events=self.recent_events)
        limit, since = config.num_recent_events, config.after_timestamp
        now = platform_time.get_time()
        log = self._cache.get(key)
        record = await self.store.load(
            key, now=now, after_revision=len(log.events) if log else 0, limit=limit, since=since
        )
        if record and log and not _continues(log, record.head.position):
            self._cache.drop(key)
            log = None
            record = await self.store.load(key, now=now, limit=limit, since=since)
        _missing.set(key if record is None else None)
        if record is None:
            self._cache.drop(key)
            return None
        try:
            events = await self._events(record, log, limit=limit, since=since)
            return _session(record, events)
        except CorruptSession as error:
            raise CorruptSession(f"{_name(key)} is damaged: {error}.") from error

    async def _events(
        self, record: SessionRecord, log: EventLog | None, *, limit: int | None, since: float | None
    ) -> list[Event]:
        """Decode the events that were loaded, keep them, and return the wanted end of the log."""
        position = record.head.position
        new = await decode_events([stored.data for stored in record.events])
        start = position.revision - len(new)
        if log is None and start == 0:
            log = EventLog(position.incarnation)
        if log is None or start > len(log.events):
            return new  # The filters left a gap to what is cached. They apply to `new` alone.
        if new or not log.events:
            log.extend(start, new, sum(len(stored.data) for stored in record.events))
            self._cache.put(record.head.key, log)
        events = log.events[: position.revision]
        return await copies(events[_first_wanted(events, limit=limit, since=since) :])

    async def refresh(self, session: PersistentSession) -> None:
        """Bring a Session object up to date, in place: the events and the state stored since.

        One round trip that fetches the new events alone. `temp:` state stays as it is.

        Raises:
            SessionNotFoundError: the session was deleted or has expired.
            StaleSessionError: another session was created under its id.
        """
        key, seen = _key_of(session), session.position
        record = await self.store.load(
            key, now=platform_time.get_time(), after_revision=seen.revision
        )
        if record is None:
            raise _not_found(key)
        if record.head.position.incarnation != seen.incarnation:
            raise StaleSessionError(
                f"{_name(key)} was deleted and created again since it was read; get it again."
            )
        new = await decode_events([stored.data for stored in record.events])
        temporary = {
            name: value
            for name, value in session.state.items()
            if name.startswith(State.TEMP_PREFIX)
        }
        session.state = _decode_by_scope(key, record.state) | temporary
        session.events.extend(new)
        session.last_update_time = record.head.updated_at
        session.advance(record.head, (event.id for event in new))

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """Return the live sessions without events, the least recently updated first."""
        _key(app_name, user_id or "", "")
        found = await self.store.list(app_name, user_id, now=platform_time.get_time())
        sessions: list[Session] = [_listed(record) for record in found]
        sessions.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=sessions)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session and its events. State of its user and app stays."""
        key = _key(app_name, user_id, session_id.strip() if session_id else session_id)
        await self.store.delete(key)
        self._cache.drop(key)

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return the state that all sessions of a user share, its keys without `user:`."""
        key = _key(app_name, user_id, "")
        return _decode_shared(key, await self.store.user_state(app_name, user_id))

    async def erase(self, *, app_name: str, user_id: str | None) -> int:
        """Remove all that is stored of a user, and return the number of sessions. State of the app stays.

        Without a user, remove the state of the app alone. Other processes may keep decoded events in memory until
        they read the session again, or need the memory.
        """
        _key(app_name, user_id or "", "")
        if user_id is not None:
            await self.store.erase(LEASES + app_name, user_id)
        erased = await self.store.erase(app_name, user_id)
        self._cache.drop_user(app_name, user_id or "")
        return erased

    async def append_event(self, session: Session, event: Event) -> Event:
        """Store an event with its state changes, then bring the caller's session up to date.

        The session is left as it was when this raises. An event that is stored already, because
        the reply to an earlier call was lost, is recognised and not stored again.

        Raises:
            StaleSessionError: the stored session has events that this copy has not seen, or is
                another one under the same id. Read it again and repeat what led to the event.
            SessionNotFoundError: it was deleted or has expired.
            RefusedValue: a field of the event or a state value cannot be stored.
        """
        if event.partial:
            return event
        if not (isinstance(session, PersistentSession) and session.attached):
            return await self._append_to_foreign(session, event)
        if event.actions.compaction and not session.turn:
            # ADK appends a summary after the turn, when the next one may have begun. ADK discards a stale
            # summary. Any other error would fail a message that is answered already.
            try:
                async with self.turn(session):
                    await self.refresh(session)
                    return await self._append(session, event, target=session)
            except (TurnTimeout, SessionNotFoundError) as error:
                raise StaleSessionError(f"A summary is not stored: {error}") from error
        async with session.cursor.lock:
            return await self._append(session, event, target=session)

    async def _append(self, session: PersistentSession, event: Event, *, target: Session) -> Event:
        """Store an event after `session`, and bring `target`, which may be the same, up to date."""
        delta = {
            name: value
            for name, value in event.actions.state_delta.items()
            if not name.startswith(State.TEMP_PREFIX)
        }
        data = encode_event(event, delta)
        turn = session.turn
        key, expected = _key_of(session), session.position
        attempt = key, expected.incarnation, event.id
        known = session.cursor.revisions.get(event.id) or self._in_doubt.revision(attempt)
        if turn and not await self.turns.keep(turn):
            raise StaleSessionError(
                f"The turn on {_name(key)} took longer than its lease, and another one has begun;"
                " get the session again and repeat the turn."
            )
        head = None
        if known and known <= expected.revision:
            head = await self._find(key, replace(expected, revision=known - 1), event.id, data)
        if head is None:
            try:
                head = await self.store.append(
                    key,
                    expected=expected,
                    event=data,
                    timestamp=event.timestamp,
                    state=_encode_by_scope(delta),
                    now=platform_time.get_time(),
                )
            except NotFound:
                raise _not_found(key) from None
            except Stale:
                head = await self._find(key, expected, event.id, data)
                if head is None and turn and turn.empty and target is session:
                    # Another turn ended between the read of the session and the beginning of this one.
                    turn.empty = False
                    await self.refresh(session)
                    return await self._append(session, event, target=target)
                if head is None:
                    raise StaleSessionError(
                        f"{_name(key)} has changed since it was read at event {expected.revision};"
                        " get it again and repeat the turn."
                    ) from None
            except BaseException:
                self._in_doubt.note(attempt, expected.revision + 1)
                raise
        self._in_doubt.settle(attempt)
        if turn:
            turn.empty = False
        if head.position.revision == expected.revision + 1:
            await super().append_event(target, event)
            target.last_update_time = event.timestamp
            session.advance(head, [event.id])
        return event

    async def _find(
        self, key: SessionKey, after: Position, event_id: str, data: bytes
    ) -> Head | None:
        """Return the head as of an event that was stored after a position, if it was.

        The bytes must be equal, because ADK lets distinct events share an id.
        """
        now = platform_time.get_time()
        record = await self.store.load(key, now=now, after_revision=after.revision)
        if record is None:
            raise _not_found(key)
        if record.head.position.incarnation != after.incarnation:
            return None
        for stored in record.events:
            if stored.data == data:
                logger.info("Event %s of %s was stored already.", event_id, _name(key))
                return replace(record.head, position=replace(after, revision=stored.revision))
        return None

    async def _append_to_foreign(self, session: Session, event: Event) -> Event:
        """Append through a Session that this service did not make, such as one read from JSON.

        It has no cursor, so its last event must be the last one stored.
        """
        current = await self.get_session(
            app_name=session.app_name,
            user_id=session.user_id,
            session_id=session.id,
            config=GetSessionConfig(num_recent_events=1),
        )
        key = _key_of(session)
        if current is None:
            raise _not_found(key)
        if [last.id for last in session.events[-1:]] != [last.id for last in current.events]:
            raise StaleSessionError(
                f"{_name(key)} was not read from this service, and its last event is not the last"
                " one stored; get it again and repeat the turn."
            )
        return await self._append(current, event, target=session)

    async def begin_turn(self, session: PersistentSession, *, block: bool = False) -> Turn | None:
        """Wait for the turns before this one, then bring the session up to date.

        Returns the turn, or None if the session has one already or turns are off.

        Raises:
            TurnTimeout: they took longer than `turn_wait`.
        """
        if session.turn:
            return None
        turn, waited = await self.turns.begin(_key_of(session), block=block)
        session.turn = turn
        try:
            if waited:
                await self.refresh(session)
        except BaseException:
            await self.end_turn(session)
            raise
        return turn

    async def end_turn(self, session: PersistentSession) -> None:
        """Let the next turn begin. A session without a turn is no error."""
        if turn := session.turn:
            await self.turns.end(turn)

    @asynccontextmanager
    async def turn(self, session: PersistentSession) -> AsyncIterator[None]:
        """Hold a turn on a session for the length of a block, for code that appends without a Runner."""
        await self.begin_turn(session, block=True)
        try:
            yield
        finally:
            await self.end_turn(session)

    async def flush(self) -> None:
        """Nothing is buffered: an event is stored when `append_event` returns."""

    async def check(self) -> None:
        """Return when the database answers and can be used, and the keys of SESSION_KEYS are right.

        Raises:
            SessionStoreError: it does not; the message says what is wrong and what to do.
        """
        await self.store.ping()
        await check_keys(self.store)

    async def prepare(self) -> None:
        """Create what the database needs before its first session, then check it."""
        await self.store.prepare()
        await self.check()

    async def close(self) -> None:
        """End turns, and release connections and memory. The service can be used again."""
        await self.turns.close()
        self._cache.clear()
        self._in_doubt.clear()
        await self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __str__(self) -> str:
        return self.description


def _key(app_name: str, user_id: str, session_id: str) -> SessionKey:
    for name, value in (("app name", app_name), ("user id", user_id), ("session id", session_id)):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RefusedValue(f"The {name} {value!r} is not valid Unicode.") from None
    if app_name.startswith((LEASES, RESERVED)):
        raise RefusedValue(f"The app name {app_name!r} is reserved.")
    return SessionKey(app_name, user_id, session_id)


def _key_of(session: Session) -> SessionKey:
    return _key(session.app_name, session.user_id, session.id)


def _name(key: SessionKey) -> str:
    return f"Session {key.session_id!r} of user {key.user_id!r} in app {key.app_name!r}"


def _not_found(key: SessionKey) -> SessionNotFoundError:
    return SessionNotFoundError(f"{_name(key)} not found: it was deleted, or it has expired.")


def by_scope(state: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T], dict[str, T]]:
    """Split state into that of the app, that of the user, and the session's own. `temp:` is left out.

    Keys lose their prefix.
    """
    app: dict[str, T] = {}
    user: dict[str, T] = {}
    own: dict[str, T] = {}
    for name, value in state.items():
        if name.startswith(State.APP_PREFIX):
            app[name.removeprefix(State.APP_PREFIX)] = value
        elif name.startswith(State.USER_PREFIX):
            user[name.removeprefix(State.USER_PREFIX)] = value
        elif not name.startswith(State.TEMP_PREFIX):
            own[name] = value
    return app, user, own


def _encode_by_scope(state: Mapping[str, Any]) -> ScopedState:
    """Encode state and split it by scope. `temp:` is not kept."""
    kept = {name: value for name, value in state.items() if not name.startswith(State.TEMP_PREFIX)}
    return ScopedState(*by_scope(encode_state(kept)))


def _decode_by_scope(key: SessionKey, state: ScopedState) -> dict[str, Any]:
    """Decode and merge the state that a session sees.

    Raises:
        CorruptSession: a value of the session's own cannot be read.
    """
    return (
        decode_state(state.session)
        | _decode_shared(key, state.app, State.APP_PREFIX)
        | _decode_shared(key, state.user, State.USER_PREFIX)
    )


def _decode_shared(key: SessionKey, state: Mapping[str, bytes], prefix: str = "") -> dict[str, Any]:
    """Decode state that several sessions share, without the values that cannot be read.

    One damaged value must not make every session of an app or a user unreadable.
    """
    decoded: dict[str, Any] = {}
    for name, data in state.items():
        try:
            decoded |= decode_state({name: data}, prefix=prefix)
        except CorruptSession as error:
            logger.error(
                "State shared in app %r, seen by user %r, is read without one key: %s.",
                key.app_name,
                key.user_id,
                error,
            )
    return decoded


def _continues(log: EventLog, position: Position) -> bool:
    """Whether a log is the beginning of the session that the store has now."""
    return log.incarnation == position.incarnation and len(log.events) <= position.revision


def _first_wanted(events: Sequence[Event], *, limit: int | None, since: float | None) -> int:
    """Return the index of the first event that the filters let through."""
    first = 0 if limit is None else max(0, len(events) - limit)
    if since is not None:
        for index in range(len(events) - 1, first - 1, -1):
            if events[index].timestamp < since:
                return index + 1
    return first


def _session(record: SessionRecord, events: list[Event]) -> PersistentSession:
    """Return the Session of a record and the end of its log.

    Raises:
        CorruptSession: a value of the session's own state cannot be read.
    """
    key, position = record.head.key, record.head.position
    session = PersistentSession(
        app_name=key.app_name,
        user_id=key.user_id,
        id=key.session_id,
        state=_decode_by_scope(key, record.state),
        last_update_time=record.head.updated_at,
    )
    session.events = events
    before = replace(position, revision=position.revision - len(events))
    session.attach(Cursor(replace(record.head, position=before)))
    session.advance(record.head, (event.id for event in events))
    return session


def _listed(record: SessionRecord) -> PersistentSession:
    """Return a session without events, and without its own state if that is damaged."""
    try:
        return _session(record, [])
    except CorruptSession as error:
        logger.error("%s is listed without its state: %s.", _name(record.head.key), error)
        return _session(replace(record, state=replace(record.state, session={})), [])
