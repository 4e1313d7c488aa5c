"""ADK's session contract, written once for every store.

Where ADK's documentation and `InMemorySessionService` define a behaviour, this is that behaviour; the
contract tests run on both. What is added is what a database brings: expiry, and the refusal of a
writer whose copy of the session is no longer current.
"""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

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

from .codec import decode_state, encode_event, encode_state
from .decoding import decode_events
from .errors import CorruptSession
from .events import Events
from .session import PersistentSession
from .store import (
    AlreadyExists,
    Head,
    NotFound,
    Position,
    Preparable,
    ScopedState,
    SessionKey,
    SessionStore,
    Stale,
    Stored,
)
from .ttl import parse_ttl
from .unsure import UnsureAppends
from .warm import EventLog, WarmLogs

logger = logging.getLogger(__name__)


class PersistentSessionService(BaseSessionService):
    """A session service over any `SessionStore`.

    Args:
        store: where sessions are kept; closed with the service.
        ttl: seconds that a session lives after its last event; 0 means for ever.
        cache_bytes: how much memory decoded events of recently used sessions may take, about.
        description: what `str()` of the service says: scheme, backend, place, ttl.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        ttl: int = 0,
        cache_bytes: int = 128 << 20,
        description: str = "",
    ) -> None:
        self.store = store
        self.ttl = ttl
        self.description = description or store.location
        self._warm = WarmLogs(cache_bytes)
        self._unsure = UnsureAppends()

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
            ValueError: an id, the ttl or a state value cannot be stored.
        """
        session_id = (session_id or "").strip() or platform_uuid.new_uuid()
        key = _key(app_name, user_id, session_id)
        seconds = self.ttl if ttl is None else parse_ttl(ttl)
        try:
            stored = await self.store.create(
                key,
                mark=secrets.token_hex(8),
                state=_encode_by_scope(state or {}),
                now=platform_time.get_time(),
                ttl=seconds,
            )
        except AlreadyExists:
            raise AlreadyExistsError(f"Session with id {session_id} already exists.") from None
        return _session(stored, Events(), {})

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> PersistentSession | None:
        """Return a session with its merged state, or None where there is none or it has expired.

        The filters of `config` mean what they mean to `InMemorySessionService`: first the last
        `num_recent_events`, of these only what follows the last one older than `after_timestamp`.

        Raises:
            CorruptSession: a stored record of this session cannot be read.
        """
        key = _key(app_name, user_id, session_id.strip() if session_id else session_id)
        config = config or GetSessionConfig()
        limit, since = config.num_recent_events, config.after_timestamp
        now = platform_time.get_time()
        log = self._warm.get(key)
        stored = await self.store.load(
            key, now=now, after_revision=log.revision if log else 0, limit=limit, since=since
        )
        if stored and log and not _continues(log, stored.head):
            self._warm.drop(key)
            log = None
            stored = await self.store.load(key, now=now, limit=limit, since=since)
        if stored is None:
            self._warm.drop(key)
            return None
        try:
            return await self._read(stored, log, limit=limit, since=since)
        except CorruptSession as error:
            raise CorruptSession(f"{_name(key)} is damaged: {error}.") from error

    async def _read(
        self, stored: Stored, log: EventLog | None, *, limit: int | None, since: float | None
    ) -> PersistentSession:
        """Decode what is new, join it to what is warm, and give the caller the wanted end of it."""
        key, position = stored.head.key, stored.head.position
        new = await decode_events(stored.events)
        start = position.revision - len(new.events)
        if log is None and start == 0:
            log = EventLog(position.mark)
        if log is None or start > log.revision:
            # The filters left a gap to what is warm, so the end that they let through is all.
            known = {event_id: start + place for event_id, place in new.places.items()}
            return _session(stored, Events(new.events), known)
        if new.events or not log.revision:
            log.extend(start, new)
            self._warm.put(key, log)
        first = _first_wanted(log.events, position.revision, limit=limit, since=since)
        wanted = log.events[first:] if first else log.events
        return _session(stored, Events(wanted, position.revision - first), log.revisions)

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """Return the live sessions without events, the least recently updated first."""
        _key(app_name, user_id or "", "")
        found = await self.store.list(app_name, user_id, now=platform_time.get_time())
        sessions: list[Session] = [_listed(stored) for stored in found]
        sessions.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=sessions)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session and its events. State of its user and app stays."""
        key = _key(app_name, user_id, session_id.strip() if session_id else session_id)
        self._warm.drop(key)
        await self.store.delete(key)

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return the state that all sessions of a user share, its keys without `user:`."""
        _key(app_name, user_id, "")
        return decode_state(await self.store.user_state(app_name, user_id))

    async def append_event(self, session: Session, event: Event) -> Event:
        """Store an event with its state changes, then bring the caller's session up to date.

        The session is left as it was when this raises. An event that is stored already, because
        the reply to an earlier call was lost, is recognised and not stored again.

        Raises:
            StaleSessionError: the stored session has events that this copy has not seen, or is
                another one under the same id. Read it again and repeat what led to the event.
            SessionNotFoundError: it was deleted or has expired.
            ValueError: a state value cannot be stored.
        """
        if event.partial:
            return event
        if not (isinstance(session, PersistentSession) and session.placed):
            return await self._append_to_foreign(session, event)
        async with session.lock:
            return await self._append(session, event, target=session)

    async def _append(self, session: PersistentSession, event: Event, *, target: Session) -> Event:
        """Store an event behind `session`, and bring `target`, which may be the same, up to date."""
        delta = {
            name: value
            for name, value in event.actions.state_delta.items()
            if not name.startswith(State.TEMP_PREFIX)
        }
        data = encode_event(event, delta)
        state = _encode_by_scope(delta)
        key, expected = _key_of(session), session.position
        attempt = key, expected.mark, event.id
        known = session.revision_of(event.id) or self._unsure.revision(attempt)
        found = None
        if known and known <= expected.revision:
            found = await self._find(key, Position(expected.mark, known - 1), event.id, data)
        if found is None:
            try:
                head = await self.store.append(
                    key,
                    expected=expected,
                    event=data,
                    timestamp=event.timestamp,
                    state=state,
                    now=platform_time.get_time(),
                )
            except NotFound:
                raise _not_found(key) from None
            except Stale:
                found = await self._find(key, expected, event.id, data)
                if found is None:
                    raise StaleSessionError(
                        f"{_name(key)} has changed since it was read at event {expected.revision};"
                        " get it again and repeat the turn."
                    ) from None
            except BaseException:
                self._unsure.note(attempt, expected.revision + 1)
                raise
        self._unsure.settle(attempt)
        if found is not None:
            if found.position.revision != expected.revision + 1:
                return event
            head = found
        await super().append_event(target, event)
        target.last_update_time = event.timestamp
        session.appended(event.id, head)
        return event

    async def _find(
        self, key: SessionKey, after: Position, event_id: str, data: bytes
    ) -> Head | None:
        """Return the head as of an event that was stored behind a position, if it was.

        Equal bytes are asked for beside the id, because ADK lets distinct events share an id.
        """
        now = platform_time.get_time()
        stored = await self.store.load(key, now=now, after_revision=after.revision)
        if stored is None:
            raise _not_found(key)
        if stored.head.position.mark != after.mark:
            return None
        for record in stored.events:
            if record.data == data:
                logger.info("Event %s of %s was stored already.", event_id, _name(key))
                return replace(stored.head, position=Position(after.mark, record.revision))
        return None

    async def _append_to_foreign(self, session: Session, event: Event) -> Event:
        """Append through a Session that this service did not make, such as one read from JSON.

        It does not say what it has seen, so its last event must be the last one stored.
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

    async def flush(self) -> None:
        """Nothing is buffered: an event is stored when `append_event` returns."""

    async def check(self) -> None:
        """Return when the database answers and can be used.

        Raises:
            SessionStoreError: it does not; the message says what is wrong and what to do.
        """
        await self.store.ping()

    async def prepare(self) -> None:
        """Create what the database needs before its first session, then check it.

        Most stores create that by themselves, when they are first used.
        """
        if isinstance(self.store, Preparable):
            await self.store.prepare()
        await self.check()

    async def close(self) -> None:
        """Release connections and memory. The service can be used again."""
        self._warm.clear()
        self._unsure.clear()
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
            raise ValueError(f"The {name} {value!r} is not valid Unicode.") from None
    return SessionKey(app_name, user_id, session_id)


def _key_of(session: Session) -> SessionKey:
    return _key(session.app_name, session.user_id, session.id)


def _name(key: SessionKey) -> str:
    return f"Session {key.session_id!r} of user {key.user_id!r} in app {key.app_name!r}"


def _not_found(key: SessionKey) -> SessionNotFoundError:
    return SessionNotFoundError(f"{_name(key)} not found: it was deleted, or it has expired.")


def _encode_by_scope(state: Mapping[str, Any]) -> ScopedState:
    """Encode state by scope; `temp:` is not kept."""
    if not state:
        return ScopedState()
    scopes: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] = ({}, {}, {})
    app, user, own = scopes
    for name, value in state.items():
        if name.startswith(State.APP_PREFIX):
            app[name.removeprefix(State.APP_PREFIX)] = value
        elif name.startswith(State.USER_PREFIX):
            user[name.removeprefix(State.USER_PREFIX)] = value
        elif not name.startswith(State.TEMP_PREFIX):
            own[name] = value
    return ScopedState(*map(encode_state, scopes))


def _continues(log: EventLog, head: Head) -> bool:
    """Whether a log is the beginning of the session that the store has now."""
    return log.mark == head.position.mark and log.revision <= head.position.revision


def _first_wanted(events: list[Event], end: int, *, limit: int | None, since: float | None) -> int:
    """Return the place of the first event up to `end` that the filters let through."""
    first = 0 if limit is None else max(0, end - limit)
    if since is not None:
        for place in range(end - 1, first - 1, -1):
            if events[place].timestamp < since:
                return place + 1
    return first


def _session(stored: Stored, events: Events, known: dict[str, int]) -> PersistentSession:
    state = decode_state(stored.state.session)
    if stored.state.app:
        state |= decode_state(stored.state.app, prefix=State.APP_PREFIX)
    if stored.state.user:
        state |= decode_state(stored.state.user, prefix=State.USER_PREFIX)
    session = PersistentSession(
        app_name=stored.head.key.app_name,
        user_id=stored.head.key.user_id,
        id=stored.head.key.session_id,
        state=state,
        last_update_time=stored.head.updated_at,
    )
    session.events = events
    return session.at(stored.head, known)


def _listed(stored: Stored) -> PersistentSession:
    try:
        return _session(stored, Events(), {})
    except CorruptSession as error:
        logger.error("%s is listed without its state: %s.", _name(stored.head.key), error)
        return _session(replace(stored, state=ScopedState()), Events(), {})
