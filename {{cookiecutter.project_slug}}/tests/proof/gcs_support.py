"""Helpers for the proof of the Cloud Storage store: sessions whose events are numbers."""

from typing import Any

from {{ cookiecutter.__package }}.sessions.gcs.store import GCSStore
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.store import (
    Position,
    ScopedState,
    SessionKey,
)

from ..sessions.support import APP, SESSION, USER

KEY = SessionKey(APP, USER, SESSION)
INCARNATION = "incarnation"


def store_of(service: PersistentSessionService) -> GCSStore:
    """Return the store of a service."""
    assert isinstance(service.store.innermost, GCSStore)
    return service.store.innermost


def folder_of(service: PersistentSessionService) -> str:
    """Return the folder of the session."""
    return store_of(service)._names.session(KEY)


async def new_log(service: PersistentSessionService, events: int = 0) -> None:
    """Create the session with this many events."""
    await service.store.create(KEY, incarnation=INCARNATION, state=ScopedState(), now=1.0, ttl=0)
    await fill(service, 1, events)


async def fill(service: PersistentSessionService, first: int, last: int, said: bytes = b"") -> None:
    """Append events with numbers as timestamp, data and state."""
    for revision in range(first, last + 1):
        await service.store.append(
            KEY,
            expected=Position(INCARNATION, revision - 1),
            event=said or b"%d" % revision,
            timestamp=float(revision),
            state=ScopedState(session={"last": b"%d" % revision}),
            now=1.0,
        )


async def numbers(service: PersistentSessionService, **filters: Any) -> list[int]:
    """Return the numbers of the events that are read."""
    record = await service.store.load(KEY, now=1.0, **filters)
    assert record is not None
    assert record.state.session == {"last": b"%d" % record.head.position.revision}
    assert [found.data for found in record.events] == [b"%d" % at.revision for at in record.events]
    return [found.revision for found in record.events]
