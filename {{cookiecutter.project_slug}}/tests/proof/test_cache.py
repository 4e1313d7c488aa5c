"""A process caches decoded events, and still sees what other processes do."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.sessions.base_session_service import GetSessionConfig

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..sessions.support import APP, SESSION, USER, create, event, exists, get, texts


@pytest.fixture
async def other(uri: str) -> AsyncIterator[PersistentSessionService]:
    """A second service on the same database, like that of another process."""
    async with create_session_service(uri) as service:
        yield service


async def test_events_of_another_process_are_seen(
    service: PersistentSessionService, other: PersistentSessionService
) -> None:
    await create(service)
    for text in ("first", "second", "third"):
        assert await exists(service)
        await other.append_event(await get(other), event(text, last=text))
        stored = await get(service)
        assert texts(stored)[-1] == text
        assert stored.state == {"last": text}
    assert texts(await get(service)) == ["first", "second", "third"]


async def test_deletion_by_another_process_is_seen(
    service: PersistentSessionService, other: PersistentSessionService
) -> None:
    session = await create(service)
    await service.append_event(session, event("old"))
    await get(service)
    await other.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
    assert not await exists(service)
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, event("late"))


@pytest.mark.parametrize("events", [0, 1, 3])
async def test_recreation_by_another_process_is_seen(
    service: PersistentSessionService, other: PersistentSessionService, events: int
) -> None:
    old = await create(service)
    await service.append_event(old, event("old"))
    await get(service)
    await other.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
    new = await create(other)
    for number in range(events):
        await other.append_event(new, event(f"new {number}"))
    assert texts(await get(service)) == [f"new {number}" for number in range(events)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 9])
async def test_filters_combine_cached_and_new_events(
    service: PersistentSessionService, other: PersistentSessionService, count: int
) -> None:
    session = await create(service)
    for number in range(3):
        await service.append_event(session, event(str(number), timestamp=float(number)))
    await get(service)
    theirs = await get(other)
    for number in range(3, 5):
        await other.append_event(theirs, event(str(number), timestamp=float(number)))
    expected = list("01234")[5 - min(count, 5) :]
    config = GetSessionConfig(num_recent_events=count)
    assert texts(await get(service, config=config)) == expected
    assert texts(await get(service, config=GetSessionConfig(after_timestamp=1.0))) == list("1234")
    assert texts(await get(service)) == list("01234")


async def test_cached_events_are_not_read_again(
    service: PersistentSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await create(service)
    for text in ("first", "second"):
        await service.append_event(session, event(text))
    await get(service)
    load, asked = service.store.load, []

    async def note(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["after_revision"])
        return await load(*args, **kwargs)

    monkeypatch.setattr(service.store, "load", note)
    assert texts(await get(service)) == ["first", "second"]
    await service.append_event(session, event("third"))
    assert texts(await get(service)) == ["first", "second", "third"]
    assert asked == [2, 2]


async def test_filters_return_the_same_with_and_without_cache(
    service: PersistentSessionService, uri: str
) -> None:
    """The database filters events that are not cached, and the service those that are."""
    session = await create(service)
    for number, timestamp in enumerate([3.0, 1.0, 4.0, 2.0, 5.0]):
        await service.append_event(session, event(str(number), timestamp=timestamp))
    await get(service)
    async with create_session_service(uri, cache_mb=0) as cold:
        for count in (None, 1, 3):
            for after in (None, 2.0, 4.5, 5.0, 6.0):
                config = GetSessionConfig(num_recent_events=count, after_timestamp=after)
                expected = texts(await get(cold, config=config))
                assert texts(await get(service, config=config)) == expected, config


async def test_filtered_session_does_not_grow(service: PersistentSessionService) -> None:
    session = await create(service)
    for text in ("first", "second", "third"):
        await service.append_event(session, event(text))
    await get(service)
    last = await get(service, config=GetSessionConfig(num_recent_events=1))
    await service.append_event(session, event("fourth"))
    assert len((await get(service)).events) == 4
    assert texts(last) == ["third"]


async def test_deleted_sessions_leave_the_cache(
    service: PersistentSessionService, other: PersistentSessionService
) -> None:
    for successor in (False, True):
        session = await create(service)
        await service.append_event(session, event("old"))
        await get(service)
        assert service._cache.size > 0
        await other.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        if successor:
            new = await create(other)
            for text in ("first", "second"):
                await other.append_event(new, event(text))
            await get(service, config=GetSessionConfig(num_recent_events=1))
        else:
            assert not await exists(service)
        assert service._cache.size == 0


async def test_cache_can_be_turned_off(uri: str) -> None:
    async with create_session_service(uri, cache_mb=0) as service:
        session = await create(service)
        await service.append_event(session, event("first"))
        assert texts(await get(service)) == texts(await get(service)) == ["first"]
