"""MongoDB: if a writer is killed between two operations, the next reader or writer completes them."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.session_not_found_error import SessionNotFoundError

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.mongodb import writes

from ..servers import mongodb as server
from ..sessions.support import APP, SESSION, USER, create, event, exists, get, texts


class Killed(Exception):
    """Simulates the kill of a writer."""


def kill_after(operations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the next append or creation after this many operations."""
    write = writes.write

    async def write_some(collection: Any, planned: Sequence[Any]) -> None:
        monkeypatch.setattr(writes, "write", write)
        assert operations < len(planned)
        if operations:
            await write(collection, planned[:operations])
        raise Killed

    monkeypatch.setattr(writes, "write", write_some)


# Insert the event, advance the head, write a `user:` and an `app:` value, settle the head.
@pytest.mark.parametrize("operations", [1, 2, 3, 4])
async def test_reader_completes_an_append(
    uri: str, monkeypatch: pytest.MonkeyPatch, operations: int
) -> None:
    async with create_session_service(uri) as killed, create_session_service(uri) as reader:
        session = await create(killed, state={"own": 0})
        said = event("said", own=1, user__a=2, app__b=3)
        kill_after(operations, monkeypatch)
        with pytest.raises(Killed):
            await killed.append_event(session, said)
        found = await get(reader)
        assert texts(found) == ["said"]
        assert found.state == {"own": 1, "user:a": 2, "app:b": 3}
        await reader.append_event(found, event("next"))
        await killed.append_event(session, said)
        assert texts(await get(killed)) == ["said", "next"]


@pytest.mark.parametrize("operations", [1, 2, 3, 4])
async def test_writer_completes_an_append(
    uri: str, monkeypatch: pytest.MonkeyPatch, operations: int
) -> None:
    async with create_session_service(uri) as killed, create_session_service(uri) as writer:
        session, copy = await create(killed), await get(writer)
        kill_after(operations, monkeypatch)
        with pytest.raises(Killed):
            await killed.append_event(session, event("said", own=1, user__a=2, app__b=3))
        with pytest.raises(StaleSessionError):
            await writer.append_event(copy, event("from a stale copy"))
        assert await writer.get_user_state(app_name=APP, user_id=USER) == {"a": 2}
        found = await get(writer)
        assert found.state == {"own": 1, "user:a": 2, "app:b": 3}


async def test_reader_completes_an_append_of_many_user_keys(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = event("many")
    many.actions.state_delta |= {f"user:{number}": number for number in range(300)}
    async with create_session_service(uri) as service:
        session = await create(service)
        kill_after(150, monkeypatch)
        with pytest.raises(Killed):
            await service.append_event(session, many)
        assert len((await get(service)).state) == 300


async def test_append_without_any_write_changes_nothing(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with create_session_service(uri) as service:
        session = await create(service)
        kill_after(0, monkeypatch)
        with pytest.raises(Killed):
            await service.append_event(session, event("said", own=1, user__a=2))
        found = await get(service)
        assert (found.events, found.state) == ([], {})


@pytest.mark.parametrize("operations", [1, 2])
async def test_late_completion_does_not_overwrite_newer_values(
    uri: str, monkeypatch: pytest.MonkeyPatch, operations: int
) -> None:
    async with create_session_service(uri) as killed, create_session_service(uri) as writer:
        session, other = await create(killed), await create(writer, "other")
        kill_after(operations, monkeypatch)
        with pytest.raises(Killed):
            await killed.append_event(session, event(user__a="old", user__b="old", app__c="old"))
        await asyncio.sleep(0.01)
        await writer.append_event(other, event(user__a="new", app__c="new"))
        expected = {"user:a": "new", "user:b": "old", "app:c": "new"}
        assert (await get(writer)).state == expected


async def test_later_event_of_a_session_wins(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with create_session_service(uri) as killed, create_session_service(uri) as writer:
        session = await create(killed)
        kill_after(1, monkeypatch)
        with pytest.raises(Killed):
            await killed.append_event(session, event(user__a="first"))
        await writer.append_event(await get(writer), event(user__a="second"))
        assert (await get(killed)).state == {"user:a": "second"}


# Create the head, write a `user:` and an `app:` value, settle the head.
@pytest.mark.usefixtures("clear_text")
@pytest.mark.parametrize("operations", [1, 2, 3])
async def test_reader_completes_a_creation(
    uri: str, monkeypatch: pytest.MonkeyPatch, operations: int
) -> None:
    async with create_session_service(uri) as killed, create_session_service(uri) as reader:
        kill_after(operations, monkeypatch)
        with pytest.raises(Killed):
            await create(killed, state={"own": 1, "user:a": 2, "app:b": 3})
        assert (await get(reader)).state == {"own": 1, "user:a": 2, "app:b": 3}


async def test_interrupted_deletion_can_be_repeated(uri: str) -> None:
    """The head is deleted first. After that, the session is gone for all readers."""
    documents = server.collection(uri, SCHEME)
    async with create_session_service(uri, ttl=0) as service, create_session_service(uri) as other:
        session = await create(service)
        await service.append_event(session, event("first"))
        copy = await get(other)
        documents.delete_one({"session_id": SESSION})
        assert not await exists(other)
        assert (await other.list_sessions(app_name=APP, user_id=USER)).sessions == []
        for late in (copy, session):
            with pytest.raises(SessionNotFoundError):
                await service.append_event(late, event("too late"))
        await other.append_event(await create(other), event("anew"))
        assert texts(await get(service)) == ["anew"]
        await other.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert documents.count_documents({"data": {"$exists": True}}) == 0


async def test_event_that_arrives_after_the_deletion_is_removed(uri: str) -> None:
    """The writer has cached the head of a session that another process has deleted or recreated."""
    documents = server.collection(uri, SCHEME)
    names = {"app_name": APP, "user_id": USER, "session_id": SESSION}
    async with create_session_service(uri, ttl=0) as writer, create_session_service(uri) as other:
        session = await create(writer)
        await other.delete_session(**names)
        with pytest.raises(SessionNotFoundError):
            await writer.append_event(session, event("too late"))
        await create(other)
        with pytest.raises(StaleSessionError):
            await writer.append_event(session, event("for a predecessor"))
        assert documents.count_documents({"data": {"$exists": True}}) == 0


async def test_concurrent_readers_and_writers_agree(uri: str) -> None:
    """Readers complete appends that their writers are also completing, and nothing is done twice."""

    async def write(name: str) -> None:
        async with create_session_service(uri) as service:
            for number in range(8):
                while True:
                    session = await get(service)
                    try:
                        said = event(f"{name}{number}", app__last=number)
                        said.actions.state_delta[name] = number
                        await service.append_event(session, said)
                        break
                    except StaleSessionError:
                        continue

    async def read() -> None:
        async with create_session_service(uri) as service:
            for _ in range(30):
                session = await get(service)
                for name in "abc":
                    said = [text for text in texts(session) if text and text[0] == name]
                    assert session.state.get(name, -1) == len(said) - 1

    async with create_session_service(uri) as service:
        await create(service)
        await asyncio.gather(*map(write, "abc"), read(), read())
        session = await get(service)
    assert sorted(map(str, texts(session))) == sorted(f"{n}{i}" for n in "abc" for i in range(8))
