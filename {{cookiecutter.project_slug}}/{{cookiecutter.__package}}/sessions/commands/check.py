"""Finds and removes damaged records.

A broken disk, another program or a newer version may damage records. Everything that is accepted can be read.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from google.adk.platform import time as platform_time
from google.adk.sessions.state import State

from ..codec import decode_events, decode_state, encode_state
from ..errors import CorruptSession
from ..keys import check_keys
from ..service import PersistentSessionService
from ..store import SessionKey
from .transfer import set_shared_state


@dataclass(frozen=True, slots=True)
class Damage:
    """A session or a shared value that cannot be read."""

    app_name: str
    user_id: str | None
    """None for a value of the app."""
    session_id: str | None
    state_key: str | None
    """The key of a value, such as `user:name`. None if it is the session."""
    problem: str


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check."""

    sessions: int
    damaged: Sequence[Damage]
    omitted: Sequence[str]
    """Why the store leaves out records that cannot be read at all."""


async def find_damage(service: PersistentSessionService, app_name: str) -> Report:
    """Read all sessions of an app and all shared state, user by user."""
    await check_keys(service.store)
    store, sessions, found = service.store, 0, list[Damage]()
    found += _damaged_values(app_name, None, await store.app_state(app_name))
    omitted = [*await store.unlisted(app_name, None)]
    async for user_id in store.users(app_name):
        omitted += await store.unlisted(app_name, user_id)
        found += _damaged_values(app_name, user_id, await store.user_state(app_name, user_id))
        for record in await store.list(app_name, user_id, now=platform_time.get_time()):
            sessions += 1
            key = record.head.key
            if problem := await _problem_of(service, key):
                found.append(Damage(app_name, user_id, key.session_id, None, problem))
    return Report(sessions, found, omitted)


def _damaged_values(
    app_name: str, user_id: str | None, state: Mapping[str, bytes]
) -> Iterator[Damage]:
    prefix = State.APP_PREFIX if user_id is None else State.USER_PREFIX
    for name, data in state.items():
        try:
            decode_state({name: data}, prefix=prefix)
        except CorruptSession as error:
            yield Damage(app_name, user_id, None, prefix + name, str(error))


async def remove_damage(service: PersistentSessionService, damaged: Iterable[Damage]) -> None:
    """Delete damaged sessions, unless they can be read by now, and set damaged values to None."""
    for damage in damaged:
        app_name, user_id, session_id = damage.app_name, damage.user_id, damage.session_id
        if damage.state_key:
            none = encode_state({damage.state_key.partition(":")[2]: None})
            await set_shared_state(service.store, app_name, user_id, none)
        elif await _problem_of(service, SessionKey(app_name, user_id or "", session_id or "")):
            await service.delete_session(
                app_name=app_name, user_id=user_id or "", session_id=session_id or ""
            )


async def _problem_of(service: PersistentSessionService, key: SessionKey) -> str | None:
    """Return why a session cannot be read."""
    try:
        record = await service.store.load(key, now=platform_time.get_time())
        if record:
            decode_state(record.state.session)
            await decode_events([stored.data for stored in record.events])
    except CorruptSession as error:
        return str(error)
    return None
