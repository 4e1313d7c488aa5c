"""MongoDB: removal of documents, concurrent first use, filters and size limits."""

import asyncio
import time
from typing import Any

import pytest
from google.adk.platform import time as platform_time
from google.adk.sessions.base_session_service import GetSessionConfig
from pymongo.collection import Collection

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import mongodb as server
from ..sessions.support import APP, create, event, exists, get, texts

Documents = Collection[dict[str, Any]]


@pytest.fixture
def documents(uri: str) -> Documents:
    """The collection of a test."""
    return server.collection(uri, SCHEME)


class TestRemoval:
    async def test_events_live_as_long_as_their_session(
        self, uri: str, documents: Documents
    ) -> None:
        moved = set()
        async with create_session_service(uri, ttl=60) as service:
            session = await create(service)
            try:
                for number in range(60):
                    ahead = number * 50
                    platform_time.set_time_provider(lambda: time.time() + ahead)  # noqa: B023
                    await service.append_event(session, event(str(number)))
                    (head,) = documents.find({"revision": number + 1})
                    moved.add(head["events_until"])
                    assert head["expires_at"] + 300 <= head["events_until"]
                assert len((await get(service)).events) == 60
            finally:
                platform_time.reset_time_provider()
        assert len(moved) <= 10
        first = documents.find({"data": {"$exists": True}}).sort("remove_at", 1)[0]
        assert first["remove_at"] >= head["remove_at"]

    async def test_events_live_on_if_another_process_extends_the_session(
        self, uri: str, documents: Documents
    ) -> None:
        async with create_session_service(uri, ttl=60) as one, create_session_service(uri) as other:
            session = await create(one)
            await one.append_event(session, event("first"))
            platform_time.set_time_provider(lambda: time.time() + 59)
            try:
                copy = await get(other)
                await other.append_event(copy, event("second"))
                platform_time.set_time_provider(lambda: time.time() + 118)
                await one.append_event(await get(one), event("third"))
                assert texts(await get(other)) == ["first", "second", "third"]
            finally:
                platform_time.reset_time_provider()
        (head,) = documents.find({"revision": 3})
        for stored in documents.find({"data": {"$exists": True}}):
            assert stored["remove_at"] >= head["remove_at"]

    @pytest.mark.parametrize("wrong_by", [-86_400.0, 86_400.0])
    async def test_skewed_clock_does_not_change_the_removal_date(
        self, uri: str, documents: Documents, wrong_by: float
    ) -> None:
        platform_time.set_time_provider(lambda: time.time() + wrong_by)
        try:
            async with create_session_service(uri, ttl=60) as service:
                await service.append_event(await create(service), event("first"))
        finally:
            platform_time.reset_time_provider()
        (written,) = documents.find({"data": {"$exists": True}})
        for document in documents.find({"remove_at": {"$exists": True}}):
            seconds = (document["remove_at"] - written["stamp"]).total_seconds()
            assert seconds == pytest.approx(60 + 300 + 60 * ("data" in document), abs=10)

    async def test_expired_session_can_be_recreated(self, uri: str, documents: Documents) -> None:
        async with create_session_service(uri, ttl=60) as service:
            await service.append_event(await create(service), event("old", user__a=1))
            platform_time.set_time_provider(lambda: time.time() + 61)
            try:
                session = await create(service, state={"user:b": 2, "own": 3})
                await service.append_event(session, event("new"))
                found = await get(service, config=GetSessionConfig(num_recent_events=1))
            finally:
                platform_time.reset_time_provider()
        assert texts(found) == ["new"]
        assert found.state == {"own": 3, "user:a": 1, "user:b": 2}
        assert documents.count_documents({"data": {"$exists": True}}) == 1

    async def test_remains_of_a_deleted_session_do_not_hide_events(
        self, uri: str, documents: Documents
    ) -> None:
        async with create_session_service(uri, ttl=0) as service:
            session = await create(service)
            for number in range(6):
                await service.append_event(session, event(f"old {number}"))
            documents.delete_one({"revision": 6})
            again = await create(service)
            for number in range(3):
                await service.append_event(again, event(str(number), timestamp=number))
        for config in (
            GetSessionConfig(num_recent_events=2),
            GetSessionConfig(after_timestamp=1),
            GetSessionConfig(num_recent_events=2, after_timestamp=0),
        ):
            async with create_session_service(uri) as reader:
                assert texts(await get(reader, config=config)) == ["1", "2"]


class TestFirstUse:
    async def test_concurrent_first_use_creates_one_schema(
        self, uri: str, documents: Documents
    ) -> None:
        services = [create_session_service(uri) for _ in range(6)]
        await asyncio.gather(*(create(service, str(n)) for n, service in enumerate(services)))
        assert len((await services[0].list_sessions(app_name=APP)).sessions) == 6
        await asyncio.gather(*(service.close() for service in services))
        assert documents.count_documents({"_id": "schema"}) == 1


class TestFilters:
    async def test_after_timestamp_stops_at_the_last_older_event(
        self, service: PersistentSessionService, uri: str
    ) -> None:
        session = await create(service)
        for number, timestamp in enumerate([1.0, 9.0, 2.0, 7.0, 6.0]):
            await service.append_event(session, event(str(number), timestamp=timestamp))
        config = GetSessionConfig(after_timestamp=5.0)
        async with create_session_service(uri) as reader:
            assert texts(await get(reader, config=config)) == ["3", "4"]
        async with create_session_service(uri) as reader:
            config = GetSessionConfig(after_timestamp=10.0)
            assert texts(await get(reader, config=config)) == []


class TestSizes:
    async def test_oversized_event_is_refused(self, service: PersistentSessionService) -> None:
        session = await create(service)
        for large in (event("x" * (17 << 20)), event(own="x" * (9 << 20))):
            with pytest.raises(ValueError, match=r"a document of MongoDB holds") as refused:
                await service.append_event(session, large)
            assert "\n" not in str(refused.value)
            assert len(str(refused.value)) < 200
        with pytest.raises(ValueError, match="state of a new session"):
            await create(service, "large", state={"own": "x" * (17 << 20)})
        assert not await exists(service, "large")
        assert (session.events, session.state) == ([], {})
        await service.append_event(session, event("fits"))
        assert texts(await get(service)) == ["fits"]

    async def test_oversized_state_is_refused_and_the_session_stays_usable(
        self, service: PersistentSessionService
    ) -> None:
        session = await create(service)
        for name in "abcd":
            large = event(name)
            large.actions.state_delta[name] = "x" * (7 << 19)
            await service.append_event(session, large)
        with pytest.raises(ValueError, match="state of a session would take"):
            await service.append_event(session, event("e", e="x" * (7 << 19)))
        await service.append_event(session, event("f", f="small"))
        assert texts(await get(service)) == [*"abcdf"]

    async def test_session_may_exceed_the_document_limit(
        self, service: PersistentSessionService, uri: str
    ) -> None:
        session = await create(service)
        for number in range(4):
            await service.append_event(session, event(str(number) + "x" * (6 << 20)))
        async with create_session_service(uri, timeoutMS=30_000) as reader:
            assert [text and text[0] for text in texts(await get(reader))] == [*"0123"]
