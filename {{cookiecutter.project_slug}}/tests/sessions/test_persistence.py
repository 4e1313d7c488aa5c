"""Promises beyond ADK's contract: durability, concurrent writers and retries."""

import asyncio
import copy
import gc
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from google.adk.errors import StaleSessionError
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.session import Session

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.session import PersistentSession

from .support import APP, SESSION, USER, create, event, exists, get, texts


@pytest.fixture
async def other(uri: str) -> AsyncIterator[PersistentSessionService]:
    """A second service on the same database, like that of another process."""
    async with create_session_service(uri) as service:
        yield service


class TestLifecycle:
    async def test_session_survives_a_restart(
        self, service: PersistentSessionService, other: PersistentSessionService
    ) -> None:
        session = await create(service, state={"own": 1, "user:name": "Ada", "app:motd": "hi"})
        await service.append_event(session, event("before", own=2))
        await service.close()
        stored = await get(other)
        assert texts(stored) == ["before"]
        assert stored.state == {"own": 2, "user:name": "Ada", "app:motd": "hi"}

    async def test_closed_service_can_be_used_again(
        self, service: PersistentSessionService
    ) -> None:
        session = await create(service)
        await service.close()
        await service.append_event(session, event("after"))
        assert texts(await get(service)) == ["after"]

    # The connections of a loop end with it, and drivers warn that they were not closed.
    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_service_works_on_several_event_loops(self, uri: str) -> None:
        """`Runner.run` starts a loop in a thread for every call."""
        service = create_session_service(uri)

        async def turn(text: str) -> list[str | None]:
            session = await get(service) if await exists(service) else await create(service)
            await service.append_event(session, event(text))
            return texts(await get(service))

        assert asyncio.run(turn("first")) == ["first"]
        assert asyncio.run(turn("second")) == ["first", "second"]
        asyncio.run(service.close())
        gc.collect()

    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_abandoned_calls_leave_the_service_usable(self, uri: str) -> None:
        service = create_session_service(uri)
        said = [event(str(number)) for number in range(10)]

        async def leave(number: int) -> None:
            session = await get(service)
            for unfinished in (service.append_event(session, said[number]), get(service)):
                asyncio.ensure_future(unfinished)  # noqa: RUF006
            for _ in range(number):
                await asyncio.sleep(0)

        async def come_back(number: int) -> list[str | None]:
            await service.append_event(await get(service), said[number])
            return texts(await get(service))

        asyncio.run(create(service))
        for number in range(len(said)):
            asyncio.run(leave(number))
            assert asyncio.run(come_back(number)) == [str(each) for each in range(number + 1)]
        asyncio.run(service.close())
        gc.collect()

    # A call that is under way may reconnect after the close.
    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    async def test_close_during_calls_loses_no_acknowledged_event(
        self, service: PersistentSessionService
    ) -> None:
        sessions = [await create(service, str(number)) for number in range(10)]
        for turn in range(10):
            calls = [
                asyncio.ensure_future(service.append_event(session, event(str(turn))))
                for session in sessions
            ]
            for _ in range(turn):
                await asyncio.sleep(0)
            await service.close()
            for call in calls:
                with suppress(StoreUnavailable):
                    await call
        for session in sessions:
            assert texts(await get(service, session.id)) == texts(session)
        gc.collect()


class TestConcurrentWriters:
    async def test_stale_writer_is_refused(
        self, service: PersistentSessionService, other: PersistentSessionService
    ) -> None:
        mine = await create(service)
        theirs = await get(other)
        await other.append_event(theirs, event("theirs", own="theirs"))
        before = copy.deepcopy(mine)
        refused = event("mine", own="mine", user__name="mine", temp__x=1)
        with pytest.raises(StaleSessionError, match="get it again"):
            await service.append_event(mine, refused)
        assert mine == before
        assert refused.actions.state_delta["temp:x"] == 1
        stored = await get(service)
        assert texts(stored) == ["theirs"]
        assert stored.state == {"own": "theirs"}

    async def test_stale_writer_with_equal_timestamp_is_refused(
        self, service: PersistentSessionService, other: PersistentSessionService
    ) -> None:
        mine, theirs = await create(service), await get(other)
        await other.append_event(theirs, event("theirs", timestamp=5.0))
        with pytest.raises(StaleSessionError):
            await service.append_event(mine, event("mine", timestamp=5.0))

    async def test_concurrent_writes_to_different_keys_are_all_kept(
        self, service: PersistentSessionService, other: PersistentSessionService
    ) -> None:
        first, second = await create(service, "first"), await create(other, "second")
        await asyncio.gather(
            service.append_event(first, event(user__first=1, app__first=2)),
            other.append_event(second, event(user__second=1, app__second=2)),
        )
        expected = {"user:first": 1, "user:second": 1, "app:first": 2, "app:second": 2}
        assert (await get(service, "first")).state == expected

    async def test_one_of_many_writers_wins(self, service: PersistentSessionService) -> None:
        await create(service, state={"count": 0})
        accepted = 0
        for _ in range(5):
            copies = [await get(service) for _ in range(8)]
            results = await asyncio.gather(
                *(
                    service.append_event(copied, event(count=copied.state["count"] + 1))
                    for copied in copies
                ),
                return_exceptions=True,
            )
            refused = [result for result in results if isinstance(result, StaleSessionError)]
            assert len(refused) == len(copies) - 1
            accepted += 1
        stored = await get(service)
        assert stored.state["count"] == len(stored.events) == accepted

    async def test_one_of_many_creators_wins(
        self, service: PersistentSessionService, other: PersistentSessionService
    ) -> None:
        results = await asyncio.gather(
            *(create(owner, state={"n": n}) for n, owner in enumerate([service, other] * 4)),
            return_exceptions=True,
        )
        (winner,) = [result for result in results if isinstance(result, Session)]
        assert (await get(service)).state == winner.state

    async def test_tasks_may_share_a_session_object(
        self, service: PersistentSessionService
    ) -> None:
        """Parallel branches of an invocation append to the same object."""
        session = await create(service)
        await asyncio.gather(
            *(service.append_event(session, event(str(number))) for number in range(10))
        )
        assert texts(session) == texts(await get(service))
        assert sorted(filter(None, texts(session))) == [str(number) for number in range(10)]

    async def test_copies_go_stale_independently(self, service: PersistentSessionService) -> None:
        session = await create(service)
        shallow, deep = session.model_copy(), copy.deepcopy(session)
        shallow.events = []
        await service.append_event(session, event("first"))
        for copied in (shallow, deep):
            with pytest.raises(StaleSessionError):
                await service.append_event(copied, event("second"))

    async def test_append_does_not_reach_a_recreated_session(
        self, service: PersistentSessionService, other: PersistentSessionService
    ) -> None:
        old = await create(service)
        await other.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        await create(other)
        with pytest.raises(StaleSessionError):
            await service.append_event(old, event("late"))
        assert (await get(service)).events == []

    @pytest.mark.parametrize("kind", [Session, PersistentSession])
    async def test_session_from_json_must_end_with_the_last_event(
        self, service: PersistentSessionService, kind: type[Session]
    ) -> None:
        session = await create(service)
        await service.append_event(session, event("first"))
        received = kind.model_validate_json(session.model_dump_json())
        await service.append_event(received, event("second"))
        assert texts(received) == texts(await get(service)) == ["first", "second"]
        with pytest.raises(StaleSessionError):
            await service.append_event(session, event("too late"))
        received = kind.model_validate_json(session.model_dump_json())
        with pytest.raises(StaleSessionError, match="not read from this service"):
            await service.append_event(received, event("third"))
        assert texts(received) == ["first"]


def lose_replies(service: PersistentSessionService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store every append, but lose the reply, until the patch is undone."""
    append = service.store.append

    async def lose_the_reply(*args: Any, **kwargs: Any) -> Any:
        await append(*args, **kwargs)
        raise ConnectionError("the reply was lost")

    monkeypatch.setattr(service.store, "append", lose_the_reply)


class TestRetries:
    async def test_event_is_stored_once_after_a_lost_reply(
        self, service: PersistentSessionService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = await create(service)
        said = event("once", own=1, user__n=1, temp__t=1)
        lose_replies(service, monkeypatch)
        with pytest.raises(ConnectionError):
            await service.append_event(session, said)
        assert session.events == []
        assert session.state == {}
        monkeypatch.undo()
        await service.append_event(session, said)
        await service.append_event(session, event("next"))
        assert session.state == {"own": 1, "user:n": 1, "temp:t": 1}
        assert texts(session) == texts(await get(service)) == ["once", "next"]

    async def test_retry_through_a_filtered_copy_is_recognised(
        self, service: PersistentSessionService, other: PersistentSessionService
    ) -> None:
        session = await create(service)
        said = [event("first"), event("second")]
        for each in said:
            await service.append_event(session, each)
        copied = await get(other, config=GetSessionConfig(num_recent_events=1))
        assert await other.append_event(copied, said[1]) is said[1]
        assert texts(await get(other)) == ["first", "second"]

    async def test_retry_through_a_copy_without_the_event_is_recognised(
        self, uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with create_session_service(uri, cache_mb=0) as service:
            session = await create(service)
            said = event("once", own=1)
            lose_replies(service, monkeypatch)
            with pytest.raises(ConnectionError):
                await service.append_event(session, said)
            monkeypatch.undo()
            again = await get(service, config=GetSessionConfig(num_recent_events=0))
            await service.append_event(again, said)
            assert again.state == {"own": 1}
            assert texts(await get(service)) == ["once"]
            await service.append_event(again, event("next"))
            assert texts(await get(service)) == ["once", "next"]

    async def test_cancelled_append_leaves_the_service_usable(
        self, service: PersistentSessionService
    ) -> None:
        session = await create(service)
        said = event("said")
        for _ in range(10):
            task = asyncio.ensure_future(service.append_event(session, said))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await service.append_event(session, said)
        assert texts(session) == texts(await get(service)) == ["said"]


class TestService:
    async def test_service_has_defaults(self, service: PersistentSessionService) -> None:
        """`create_session_service` passes every option. Own code may pass none."""
        by_hand = PersistentSessionService(service.store)
        assert (await create(by_hand)).expires_at is None  # type: ignore[attr-defined]
        assert str(by_hand) == service.store.location
        assert str(PersistentSessionService(service.store, description="mine")) == "mine"

    async def test_prepare_checks_the_store(
        self, service: PersistentSessionService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail() -> None:
            raise StoreUnavailable("it does not answer")

        monkeypatch.setattr(service.store, "ping", fail)
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await service.prepare()

    async def test_ids_must_be_valid_unicode(self, service: PersistentSessionService) -> None:
        """No database can store a lone surrogate."""
        half = "half \ud83d"
        with pytest.raises(ValueError, match=r"app name .* is not valid Unicode"):
            await create(service, app_name=half)
        with pytest.raises(ValueError, match=r"session id .* is not valid Unicode"):
            await create(service, half)
        for call in (
            get(service, user_id=half),
            service.list_sessions(app_name=APP, user_id=half),
            service.get_user_state(app_name=APP, user_id=half),
        ):
            with pytest.raises(ValueError, match=r"user id .* is not valid Unicode"):
                await call
