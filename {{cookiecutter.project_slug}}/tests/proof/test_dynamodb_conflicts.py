"""DynamoDB: conflicts, lost replies and late visibility. A proxy simulates what the emulator lacks."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from google.adk.errors import StaleSessionError
from google.adk.sessions.base_session_service import GetSessionConfig

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.dynamodb import store as store_module
from {{ cookiecutter.__package }}.sessions.dynamodb.client import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Backoff,
)
from {{ cookiecutter.__package }}.sessions.errors import (
    CorruptSession,
    StoreUnavailable,
)
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import dynamodb as server
from ..servers.dynamodb import options_of, stored_items
from ..servers.dynamodb_proxy import CONFLICT, DynamoDBProxy, error, run_proxy
from ..sessions.support import APP, SESSION, USER, create, event, exists, get, texts, until

CANCELLED = "TransactionCanceledException"
WRITE, READ, QUERY = "TransactWriteItems", "TransactGetItems", "Query"


@pytest.fixture
async def proxy(uri: str) -> AsyncIterator[DynamoDBProxy]:
    """A proxy in front of DynamoDB, for one test."""
    if "endpoint_url" not in options_of(uri):
        pytest.skip("DynamoDB itself refuses calls that were sent to another host.")
    async with run_proxy(uri) as proxy:
        yield proxy


@pytest.fixture
async def service(proxy: DynamoDBProxy) -> AsyncIterator[PersistentSessionService]:
    """A service that goes through the proxy. Its first use and first cleanup are over."""
    async with create_session_service(proxy.uri) as service:
        await create(service, "first")
        store: Any = service.store.innermost
        await until(lambda: not store._cleanup.tasks)
        proxy.requests.clear()
        yield service


def tokens(proxy: DynamoDBProxy) -> list[str]:
    """Return the token of each write."""
    return [body["ClientRequestToken"] for name, body in proxy.requests if name == WRITE]


class TestWrites:
    async def test_conflicting_write_is_retried_with_a_new_token(
        self, service: PersistentSessionService, proxy: DynamoDBProxy
    ) -> None:
        session = await create(service)
        proxy.requests.clear()
        for reason in ("TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"):
            proxy.answer_next(WRITE, error(CANCELLED, "None", reason))
        await service.append_event(session, event("in the end"))
        assert len(tokens(proxy)) == len(set(tokens(proxy))) == 4
        assert texts(await get(service)) == ["in the end"]

    async def test_write_without_a_reply_is_retried_with_the_same_token(
        self, service: PersistentSessionService, proxy: DynamoDBProxy
    ) -> None:
        """DynamoDB repeats its first answer. The emulator refuses, and the store finds the event."""
        session = await create(service)
        proxy.requests.clear()
        proxy.answer_next(WRITE, proxy.lose_reply)
        await service.append_event(session, event("once", own=1))
        assert len(tokens(proxy)) == 2
        assert len(set(tokens(proxy))) == 1
        proxy.answer_next(WRITE, proxy.lose_reply)
        created = await create(service, "other", state={"user:n": 1})
        assert created.state == {"user:n": 1}
        assert texts(session) == texts(await get(service)) == ["once"]

    async def test_close_waits_for_a_write_in_progress(
        self, service: PersistentSessionService, proxy: DynamoDBProxy
    ) -> None:
        """Otherwise the SDK would fail, and the outcome of the append would be unknown."""
        session = await create(service)
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def late(request: web.Request, body: bytes) -> web.Response:
            arrived.set()
            await go_on.wait()
            return await proxy.forward(request, body)

        proxy.answer_next(WRITE, late)
        proxy.count()
        append = asyncio.create_task(service.append_event(session, event("kept")))
        await arrived.wait()
        closing = asyncio.create_task(service.close())
        assert texts(await get(service)) == []
        assert not closing.done()
        go_on.set()
        await asyncio.gather(append, closing)
        assert proxy.count()[WRITE] == 1
        assert texts(session) == texts(await get(service)) == ["kept"]

    async def test_permanent_conflict_is_reported(
        self, service: PersistentSessionService, proxy: DynamoDBProxy
    ) -> None:
        session = await create(service)
        proxy.answer_next(WRITE, *[CONFLICT] * 1_000)
        async with create_session_service(proxy.uri, timeout=3) as hasty:
            await exists(hasty)
            with pytest.raises(StoreUnavailable, match="other writers kept changing the same"):
                await hasty.append_event(session, event("never"))
        assert session.events == []

    async def test_stale_writer_is_refused_after_a_conflict(
        self, service: PersistentSessionService, proxy: DynamoDBProxy
    ) -> None:
        session = await create(service)
        await service.append_event(await get(service), event("first"))
        proxy.answer_next(WRITE, CONFLICT)
        with pytest.raises(StaleSessionError):
            await service.append_event(session, event("second"))
        reasons = ("ConditionalCheckFailed", "TransactionConflict")
        proxy.answer_next(WRITE, error(CANCELLED, *reasons))
        with pytest.raises(ValueError, match="deleted, or it has expired"):
            await service.append_event(await get(service), event("without a head"))

    async def test_concurrent_writers_of_app_state_all_succeed(
        self, service: PersistentSessionService, proxy: DynamoDBProxy
    ) -> None:
        sessions = [await create(service, f"s{number}") for number in range(8)]
        proxy.answer_next(WRITE, *[CONFLICT] * 12)

        async def append(number: int) -> None:
            said = event()
            said.actions.state_delta = {f"app:{number}": number}
            await service.append_event(sessions[number], said)

        await asyncio.gather(*map(append, range(8)))
        state = (await get(service, "first")).state
        assert state == {f"app:{number}": number for number in range(8)}

    async def test_retry_delays_are_random_growing_and_limited(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise writers that collided would collide again."""
        pauses: list[float] = []

        async def note(seconds: float) -> None:
            pauses.append(seconds)

        monkeypatch.setattr(asyncio, "sleep", note)
        backoff = Backoff(60)
        for tries in range(8):
            assert await backoff.pause()
            assert 0 <= pauses[-1] <= min(FIRST_PAUSE * 2**tries, LONGEST_PAUSE)
        assert len(set(pauses)) == 8
        assert not await Backoff(-1).pause()

    @pytest.mark.usefixtures("clear_text")
    async def test_unprocessed_items_of_a_batch_are_retried(
        self, service: PersistentSessionService, proxy: DynamoDBProxy, uri: str
    ) -> None:
        await service.append_event(await create(service), event())

        async def leave_all(request: web.Request, body: bytes) -> web.Response:
            asked = json.loads(body)["RequestItems"]
            left = "UnprocessedKeys" if "BatchGet" in str(request.headers) else "UnprocessedItems"
            return web.json_response({"Responses": {}, left: asked})

        proxy.answer_next("BatchGetItem", *[leave_all] * 2)
        assert len((await service.list_sessions(app_name=APP)).sessions) == 2
        proxy.answer_next("BatchWriteItem", *[leave_all] * 3)
        for session_id in ("first", SESSION):
            await service.delete_session(app_name=APP, user_id=USER, session_id=session_id)
        assert stored_items(uri) == {}


class TestReads:
    async def test_conflicting_read_is_retried(
        self, service: PersistentSessionService, proxy: DynamoDBProxy
    ) -> None:
        await create(service)
        proxy.requests.clear()
        proxy.answer_next(READ, CONFLICT)
        assert await exists(service)
        assert proxy.count()[READ] == 2

    async def test_read_waits_for_an_event_that_is_not_visible_yet(
        self, service: PersistentSessionService, proxy: DynamoDBProxy
    ) -> None:
        session = await create(service)
        for number in range(3):
            await service.append_event(session, event(str(number)))

        async def without_the_last(request: web.Request, body: bytes) -> web.Response:
            reply = await proxy.forward(request, body)
            assert isinstance(reply.body, bytes)
            content = json.loads(reply.body)
            return web.json_response(content | {"Items": content["Items"][1:]})

        proxy.answer_next(QUERY, *[without_the_last] * 3)
        assert texts(await get(service)) == ["0", "1", "2"]

    async def test_lost_event_is_reported_as_damage(
        self, service: PersistentSessionService, uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = await create(service)
        for number in range(3):
            await service.append_event(session, event(str(number)))
        [lost] = [
            item for (_, sk), item in stored_items(uri).items() if sk.startswith("000000000002/")
        ]
        key = {name: lost[name] for name in ("pk", "sk")}
        server.client(uri).delete_item(TableName=server.table_name(uri), Key=key)
        monkeypatch.setattr(store_module, "VISIBLE_WITHIN", 0.1)
        async with create_session_service(uri) as cold:
            with pytest.raises(CorruptSession, match="is damaged: event 2 is missing"):
                await get(cold)
            assert texts(await get(cold, config=GetSessionConfig(num_recent_events=1))) == ["2"]

    async def test_session_deleted_during_a_read_is_not_found(
        self, service: PersistentSessionService, proxy: DynamoDBProxy, uri: str
    ) -> None:
        await service.append_event(await create(service), event())
        head_was_read = asyncio.Event()

        async def after_the_deletion(request: web.Request, body: bytes) -> web.Response:
            await head_was_read.wait()
            async with create_session_service(uri) as other:
                await other.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
            return await proxy.forward(request, body)

        async def note(request: web.Request, body: bytes) -> web.Response:
            reply = await proxy.forward(request, body)
            head_was_read.set()
            return reply

        proxy.answer_next(READ, note)
        proxy.answer_next(QUERY, after_the_deletion)
        async with create_session_service(proxy.uri) as cold:
            assert not await exists(cold)

    async def test_after_timestamp_reads_several_pages(
        self, service: PersistentSessionService, proxy: DynamoDBProxy
    ) -> None:
        session = await create(service)
        for number in range(12):
            await service.append_event(session, event(str(number), timestamp=float(number)))
        proxy.count()
        async with create_session_service(proxy.uri) as cold:
            config = GetSessionConfig(num_recent_events=10, after_timestamp=4.0)
            expected = [str(number) for number in range(4, 12)]
            assert texts(await get(cold, config=config)) == expected
        assert proxy.count()[QUERY] == 1
