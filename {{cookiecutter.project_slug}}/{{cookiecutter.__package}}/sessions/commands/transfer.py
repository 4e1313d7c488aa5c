"""Copies sessions and shared state between any two of: a session service, a store of ours, lines of JSON.

A source (`sources.py`, or `read_lines`) yields records. `Target` writes them to a store, and `to_line` to a file. A
session is written event by event, with its ids and times. What the target has already is compared and skipped, so
an interrupted copy is finished by running it again.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.adk.events.event import Event
from google.adk.platform import time as platform_time
from google.adk.sessions.session import Session
from google.adk.sessions.state import State

from ..codec import decode_event, decode_state, encode_event, encode_state
from ..errors import CorruptSession, RefusedValue, SessionStoreError
from ..service import by_scope
from ..store import (
    AlreadyExists,
    NotFound,
    ScopedState,
    SessionKey,
    SessionStore,
    Stale,
    StoredEvent,
)
from ..ttl import parse_ttl

FORMAT = 1
AT_ONCE = 16
"""Sessions that are written at the same time."""
PASSING_TTL = 1
"""Seconds for which a list shows the session that sets shared state, if its process is killed."""
ATTEMPTS = 5


class TransferError(SessionStoreError):
    """The line is not an exported session or state."""


@dataclass(frozen=True, slots=True)
class Shared:
    """The state of a user, or of the app if there is no user. Values are encoded, and keys have no prefix."""

    app_name: str
    user_id: str | None
    state: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Content:
    """A session without what it shares."""

    updated_at: float
    ttl: int | None
    """None if the source has no times to live."""
    state: Mapping[str, bytes]
    events: Sequence[StoredEvent]


@dataclass(frozen=True, slots=True)
class Found:
    """A session of a source. Its content is read when it is needed."""

    key: SessionKey
    read: Callable[[], Awaitable[Content | None]]
    """Returns None if the session is gone. Raises SessionStoreError or ValueError if it is unreadable."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that cannot be read."""

    name: str
    problem: str
    user_id: str | None = None
    state_key: str | None = None
    """The key of a value of shared state, such as `user:name`."""


Record = Shared | Found | Unreadable


def name_of(key: SessionKey) -> str:
    """Return how messages call a session."""
    return f"session {key.session_id!r} of user {key.user_id!r} in app {key.app_name!r}"


def shared_from_adk(session: Session) -> list[Shared | Unreadable]:
    """Return the state that a Session of ADK shares with others, and its values that cannot be stored."""
    app, user, _ = by_scope(session.state)
    return [
        *shared_records(session.app_name, None, app),
        *shared_records(session.app_name, session.user_id, user),
    ]


def shared_records(
    app_name: str, user_id: str | None, values: Mapping[str, Any]
) -> list[Shared | Unreadable]:
    """Return state of a user, or of the app, and its values that cannot be stored."""
    prefix = State.APP_PREFIX if user_id is None else State.USER_PREFIX
    state: dict[str, bytes] = {}
    refused: list[Shared | Unreadable] = []
    for name, value in values.items():
        try:
            state |= encode_state({name: value})
        except RefusedValue as error:
            where = name_of_shared(app_name, user_id)
            refused.append(Unreadable(where, str(error), user_id, prefix + name))
    return [*([Shared(app_name, user_id, state)] if state else []), *refused]


def content_from_adk(session: Session) -> Content:
    """Return what a Session of ADK holds itself. ADK has no times to live.

    Raises:
        RefusedValue: a value or an event cannot be stored.
    """
    events = [
        StoredEvent(number, event.timestamp, encode(event))
        for number, event in enumerate(session.events, 1)
    ]
    own = by_scope(session.state)[2]
    return Content(session.last_update_time, None, encode_state(own), events)


def encode(event: Event) -> bytes:
    """Return the bytes of an event as the service stores them."""
    delta = event.actions.state_delta.items()
    return encode_event(event, {k: v for k, v in delta if not k.startswith(State.TEMP_PREFIX)})


# Lines of JSON.


def to_line(key: SessionKey, content: Content) -> str:
    """Return a session as a line."""
    return json.dumps(
        {
            "format": FORMAT,
            "app": key.app_name,
            "user": key.user_id,
            "id": key.session_id,
            "updated": content.updated_at,
            "ttl": content.ttl,
            "state": _plain(content.state),
            "events": [json.loads(event.data) for event in content.events],
        }
    )


def shared_line(shared: Shared) -> str:
    """Return shared state as a line."""
    names = {"format": FORMAT, "app": shared.app_name, "user": shared.user_id}
    return json.dumps(names | {"shared": _plain(shared.state)})


async def read_lines(lines: Iterable[str], name: str) -> AsyncIterator[Record]:
    """Yield the records of exported lines, or of one Session as ADK writes it to a file.

    Raises:
        TransferError: a line is neither. The message has its number and the name of the file.
    """
    number, remaining = 0, iter(lines)
    try:
        for number, line in enumerate(remaining, 1):  # noqa: B007
            if line.strip():
                for record in parse(_load(line, remaining)):
                    yield record
    except UnicodeDecodeError as error:
        raise TransferError(f"{name} is not a text in UTF-8.") from error
    except (SessionStoreError, LookupError, ValueError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise TransferError(
            f"Line {number} of {name} cannot be imported: {reason.partition(chr(10))[0]}."
        ) from error
    except RecursionError as error:
        raise TransferError(f"Line {number} of {name} is nested too deeply.") from error


def parse(data: Any) -> list[Record]:
    """Return the records of the data of a line, or of a Session of ADK."""
    if not isinstance(data, dict):
        raise TransferError("it is not an exported session")
    if "format" not in data and "id" in data and ("appName" in data or "app_name" in data):
        session = Session.model_validate(data)
        key = SessionKey(session.app_name, session.user_id, session.id)
        return [*shared_from_adk(session), _found(key, content_from_adk(session))]
    if data.get("format") != FORMAT:
        raise TransferError(f"it is not an exported session of format {FORMAT}")
    app_name, user_id = data["app"], data["user"]
    if "shared" in data:
        if not (isinstance(app_name, str) and isinstance(user_id, str | None)):
            raise TransferError("app and user are not texts")
        return [Shared(app_name, user_id, _encoded(data["shared"]))]
    if not all(isinstance(name, str) for name in (app_name, user_id, data["id"])):
        raise TransferError("app, user and id are not all texts")
    events = [decode_event(json.dumps(event).encode()) for event in data["events"]]
    content = Content(
        float(data["updated"]),
        None if data["ttl"] is None else parse_ttl(data["ttl"]),
        _encoded(data["state"]),
        [StoredEvent(n, event.timestamp, encode(event)) for n, event in enumerate(events, 1)],
    )
    return [_found(SessionKey(app_name, user_id, data["id"]), content)]


def _found(key: SessionKey, content: Content) -> Found:
    async def read() -> Content:
        return content

    return Found(key, read)


def _load(line: str, more: Iterable[str]) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return json.loads(line + "".join(more))  # ADK writes one session in several lines


def _plain(state: Mapping[str, bytes]) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in state.items()}


def _encoded(state: Mapping[str, Any]) -> dict[str, bytes]:
    return encode_state(
        decode_state({key: json.dumps(value).encode() for key, value in state.items()})
    )


# Into a store.


@dataclass(slots=True)
class Counts:
    """What happened to the records of a source."""

    copied: int = 0
    """Sessions that were written, or finished."""
    skipped: int = 0
    """Sessions that were there already."""
    problems: list[str] = field(default_factory=list)
    """Records that could not be read or written, one sentence each."""

    @property
    def sessions(self) -> int:
        """The number of sessions so far."""
        return self.copied + self.skipped


class Target:
    """Writes records to a store.

    Args:
        store: the store.
        default_ttl: the time to live of sessions whose source has none.
        ttl: the time to live of all sessions, instead of their own.
        verify: whether everything is read again and compared.
    """

    def __init__(
        self, store: SessionStore, *, default_ttl: int, ttl: int | None = None, verify: bool = False
    ) -> None:
        self.store = store
        self.default_ttl = default_ttl
        self.ttl = ttl
        self.verify = verify
        self.counts = Counts()

    async def write(
        self, records: AsyncIterator[Record], progress: Callable[[Counts], None]
    ) -> Counts:
        """Write all records, many at the same time. Problems of single records are counted.

        Raises:
            StoreUnavailable: a database does not answer.
        """
        free = asyncio.Semaphore(AT_ONCE)

        async def write(record: Record) -> None:
            try:
                await self._write(record)
            finally:
                free.release()
                progress(self.counts)

        try:
            async with asyncio.TaskGroup() as tasks:
                async for record in records:
                    await free.acquire()
                    tasks.create_task(write(record))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return self.counts

    async def _write(self, record: Record) -> None:
        if isinstance(record, Unreadable):
            self.counts.problems.append(f"{record.name}: {record.problem}")
        elif isinstance(record, Shared):
            name = name_of_shared(record.app_name, record.user_id)
            await self._counting_problems(name, self._write_shared(record))
        else:
            await self._counting_problems(name_of(record.key), self._write_session(record))

    async def _counting_problems(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except (CorruptSession, RefusedValue, ValueError, TransferError) as error:
            self.counts.problems.append(f"{name}: {error}")

    async def _write_shared(self, shared: Shared) -> None:
        present = await self._shared_state(shared)
        missing = {name: data for name, data in shared.state.items() if present.get(name) != data}
        if missing:
            await set_shared_state(self.store, shared.app_name, shared.user_id, missing)
            if self.verify and not (await self._shared_state(shared)).items() >= missing.items():
                raise TransferError("what was written is not what is there now")

    async def _shared_state(self, shared: Shared) -> Mapping[str, bytes]:
        if shared.user_id is None:
            return await self.store.app_state(shared.app_name)
        return await self.store.user_state(shared.app_name, shared.user_id)

    async def _write_session(self, found: Found) -> None:
        content = await found.read()
        if content is None:
            return
        for attempt in range(ATTEMPTS):
            try:
                written = await self._bring_up_to_date(found.key, content)
                break
            except (AlreadyExists, NotFound, Stale):  # another process writes it as well
                if attempt + 1 == ATTEMPTS:
                    raise TransferError("it changes in the target while it is written") from None
        if self.verify:
            await self._compare(found.key, content)
        if written:
            self.counts.copied += 1
        else:
            self.counts.skipped += 1

    async def _bring_up_to_date(self, key: SessionKey, content: Content) -> bool:
        """Write what the target lacks of a session, and return whether that was anything."""
        now, events = platform_time.get_time(), content.events
        ttl = next(each for each in (self.ttl, content.ttl, self.default_ttl) if each is not None)
        record = await self.store.load(key, now=now, limit=1)
        if is_new := record is None:
            began = content.updated_at
            if events or (ttl and began + ttl <= now):
                began = now  # the life of a copy begins now
            record = await self.store.create(
                key,
                incarnation=secrets.token_hex(8),
                state=ScopedState(session=content.state),
                now=began,
                ttl=ttl,
            )
        position, there = record.head.position, record.head.position.revision
        common = min(there, len(events))
        if there > common > 0:  # it may have gone on in the target
            record = await self.store.load(key, now=now, after_revision=common - 1) or record
        if [each.data for each in events[common - 1 : common]] != [
            each.data for each in record.events[:1]
        ]:
            raise TransferError("the target's session with this id has other events")
        changed = {
            name: data
            for name, data in content.state.items()
            if record.state.session.get(name) != data
        }
        for event in events[there:]:
            state = ScopedState(session=changed if event is events[-1] else {})
            head = await self.store.append(
                key,
                expected=position,
                event=event.data,
                timestamp=event.timestamp,
                state=state,
                now=now,
            )
            position = head.position
        return is_new or there < len(events)

    async def _compare(self, key: SessionKey, content: Content) -> None:
        record = await self.store.load(key, now=platform_time.get_time())
        if record is None:
            raise TransferError("it was written, and has expired or was deleted")
        events = [event.data for event in content.events]
        same = [event.data for event in record.events[: len(events)]] == events
        went_on = len(record.events) > len(events)
        if not same or not (went_on or record.state.session.items() >= content.state.items()):
            raise TransferError("what was written is not what is there now")


def name_of_shared(app_name: str, user_id: str | None) -> str:
    """Return how messages call shared state."""
    if user_id is None:
        return f"state of app {app_name!r}"
    return f"state of user {user_id!r} in app {app_name!r}"


async def set_shared_state(
    store: SessionStore, app_name: str, user_id: str | None, state: Mapping[str, bytes]
) -> None:
    """Set state of a user, or of the app. Only a creation can do this without an event."""
    scopes = ScopedState(app=state) if user_id is None else ScopedState(user=state)
    key = SessionKey(app_name, user_id or "", secrets.token_hex(16))
    await store.create(
        key,
        incarnation=secrets.token_hex(8),
        state=scopes,
        now=platform_time.get_time(),
        ttl=PASSING_TTL,
    )
    await store.delete(key)
