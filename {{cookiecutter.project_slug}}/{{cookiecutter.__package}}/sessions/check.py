"""Finds and removes damaged records.

A broken disk, another program or a newer version may damage records. Everything that is accepted can be read.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.adk.platform import time as platform_time
from google.adk.sessions.state import State

from .codec import decode_events, decode_state
from .errors import CorruptSession
from .keys import check_keys
from .service import PersistentSessionService
from .store import SessionKey
from .transfer import set_shared_state


@dataclass(frozen=True, slots=True)
class Damage:
    """A session or a shared value that cannot be read."""

    key: SessionKey
    """The session, or one of those that share the value."""
    state_key: str | None
    """The key of the value, such as `user:name`. None if it is the session."""
    problem: str


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check."""

    sessions: int
    damaged: Sequence[Damage]
    omitted: Sequence[str]
    """The store's warnings about records that it omitted from its list, because they cannot be read at all."""


class _Warnings(logging.Handler):
    """Collects the warnings of a logger."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message of a record."""
        self.messages.append(record.getMessage())


async def find_damage(service: PersistentSessionService, app_name: str) -> Report:
    """Read all sessions of an app.

    Values of users without sessions are not found, because a store cannot list users.
    """
    await check_keys(service.store)
    warnings, logger = _Warnings(), logging.getLogger(__package__)
    logger.addHandler(warnings)
    try:
        records = await service.store.list(app_name, None, now=platform_time.get_time())
    finally:
        logger.removeHandler(warnings)
    found = []
    shared = {}
    for record in records:
        key = record.head.key
        if problem := await _problem_of(service, key):
            found.append(Damage(key, None, problem))
        shared[State.APP_PREFIX, ""] = key, record.state.app
        shared[State.USER_PREFIX, key.user_id] = key, record.state.user
    for (prefix, _), (key, values) in shared.items():
        for name, data in values.items():
            try:
                decode_state({name: data}, prefix=prefix)
            except CorruptSession as error:
                found.append(Damage(key, prefix + name, str(error)))
    return Report(len(records), found, warnings.messages)


async def remove_damage(service: PersistentSessionService, damaged: Iterable[Damage]) -> None:
    """Delete damaged sessions, unless they can be read by now, and set damaged values to None."""
    for damage in damaged:
        key = damage.key
        app_name, user_id = key.app_name, key.user_id
        if damage.state_key:
            await set_shared_state(service, app_name, user_id, {damage.state_key: None})
        elif await _problem_of(service, key):
            await service.delete_session(
                app_name=app_name, user_id=user_id, session_id=key.session_id
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
