"""What is particular to DynamoDB: its items and what is left of them, its requests, its errors.

The emulator is a good one as long as nobody is in anybody's way. What DynamoDB does then, it refuses
transactions, throttles, and knows a repeated call by its token, is played by a server in between.
"""

import asyncio
import json
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import ClientSession, web
from google.adk.errors import StaleSessionError
from google.adk.platform import time as platform_time
from google.adk.sessions.base_session_service import GetSessionConfig
from {{ cookiecutter.__package }}.sessions.stores import dynamodb

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.codec import encode_event
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.dynamodb.items import (
    MAX_KEYS_AT_ONCE,
    event_items,
    state_update,
)
from {{ cookiecutter.__package }}.sessions.dynamodb.table import (
    LONGEST_PAUSE,
    PAUSE,
    Patience,
)
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    CorruptSession,
    SessionStoreError,
    StoreUnavailable,
)
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.session import PersistentSession
from {{ cookiecutter.__package }}.sessions.store import StoredEvent

from ..servers import dynamodb as server
from .support import APP, SESSION, USER, create, event, exists, get, texts

HOUR, GRACE = 3_600, 300
WRITE, READ, QUERY = "TransactWriteItems", "TransactGetItems", "Query"
CANCELLED = "TransactionCanceledException"

Reply = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
"""Answers a call in place of the emulator, or with its help."""


class Between:
    """A server before the emulator: it notes calls, and answers some of them in a way of its own."""

    def __init__(self, uri: str) -> None:
        self._server_uri = uri
        self._endpoint = options(uri)["endpoint_url"]
        self._session: ClientSession
        self._replies: list[tuple[str, Reply]] = []
        self.uri = ""
        """The session URI that leads through this server."""
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def expect(self, operation: str, *replies: Reply) -> None:
        """Have the next calls of an operation answered so, in this order."""
        self._replies += [(operation, reply) for reply in replies]

    def counted(self) -> Counter[str]:
        """Return how often each operation was called since the last time."""
        counted = Counter(operation for operation, _ in self.calls)
        self.calls.clear()
        return counted

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a call."""
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        body = await request.read()
        self.calls.append((operation, json.loads(body)))
        for place, (wanted, reply) in enumerate(self._replies):
            if wanted == operation:
                del self._replies[place]
                return await reply(request, body)
        return await self.forward(request, body)

    async def forward(self, request: web.Request, body: bytes) -> web.Response:
        """Let the emulator answer."""
        names = ("X-Amz-Target", "Authorization", "X-Amz-Date", "Content-Type")
        headers = {name: request.headers[name] for name in names}
        content = BytesIO(body)
        async with self._session.post(self._endpoint, data=content, headers=headers) as reply:
            return web.Response(
                status=reply.status, body=await reply.read(), content_type=reply.content_type
            )

    async def lose_reply(self, request: web.Request, body: bytes) -> web.Response:
        """Let the emulator do its work, and close the connection in place of an answer."""
        await self.forward(request, body)
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Between"]:
        """Serve on a free port."""
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        async with ClientSession() as self._session:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            endpoint = f"http://127.0.0.1:{port}"
            self.uri = with_options(self._server_uri, endpoint_url=endpoint)
            try:
                yield self
            finally:
                await runner.cleanup()


def failure(code: str, *reasons: str, message: str = "no") -> Reply:
    """Return the answer of DynamoDB that something went wrong, for these reasons."""
    said: dict[str, Any] = {
        "__type": f"com.amazonaws.dynamodb.v20120810#{code}",
        "message": message,
    }
    if reasons:
        said["CancellationReasons"] = [{"Code": reason} for reason in reasons]

    async def reply(request: web.Request, body: bytes) -> web.Response:
        return web.json_response(said, status=400)

    return reply


def answer(**said: Any) -> Reply:
    """Return an answer of DynamoDB that nothing went wrong."""

    async def reply(request: web.Request, body: bytes) -> web.Response:
        return web.json_response(said)

    return reply


def options(uri: str) -> dict[str, str]:
    """Return the options of a URI."""
    return dict(parse_qsl(urlsplit(uri).query))


def with_options(uri: str, **more: object) -> str:
    """Return a URI with other options; None takes one away."""
    query = {name: value for name, value in (options(uri) | more).items() if value is not None}
    text = "&".join(f"{name}={value}" for name, value in query.items())
    return urlsplit(uri)._replace(query=text).geturl()


def with_table(uri: str, table: str) -> str:
    """Return a URI of another table."""
    parts = urlsplit(uri)
    credentials, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{credentials}{at}{table}").geturl()


@pytest.fixture
async def between(uri: str) -> AsyncIterator[Between]:
    """A server in between, for one test."""
    if "endpoint_url" not in options(uri):
        pytest.skip("DynamoDB itself would see that its calls have come another way.")
    async with Between(uri).run() as between:
        yield between


@pytest.fixture
async def through(between: Between) -> AsyncIterator[PersistentSessionService]:
    """A service that goes through it, and has nothing to do in the background."""
    async with create_session_service(between.uri) as service:
        await create(service, "first")
        await swept(service)
        between.calls.clear()
        yield service


@pytest.fixture
def other_table(uri: str) -> Iterator[str]:
    """A session URI of a table that is not there yet."""
    table = f"test-{token_hex(8)}"
    yield with_options(with_table(uri, table), create_table=None)
    tables, sdk = [], server.client(uri)
    for page in sdk.get_paginator("list_tables").paginate():
        tables += page["TableNames"]
    if table in tables:
        sdk.delete_table(TableName=table)


@pytest.fixture
def clock() -> Iterator[Callable[[float], None]]:
    """Put the clock of the service forward."""

    def forward(seconds: float) -> None:
        platform_time.set_time_provider(lambda: time.time() + seconds)

    yield forward
    platform_time.reset_time_provider()


def items(uri: str) -> dict[tuple[str, str], Any]:
    """Return all that is stored under the prefix of a URI, without the prefix."""
    prefix = f"{urlsplit(uri).path.strip('/')}/"
    table = urlsplit(uri).netloc.rpartition("@")[2]
    found = {}
    for page in server.client(uri).get_paginator("scan").paginate(TableName=table):
        for item in page["Items"]:
            if (pk := item["pk"]["S"]).startswith(prefix):
                found[pk.removeprefix(prefix), item["sk"]["S"]] = item
    return found


async def swept(service: PersistentSessionService) -> None:
    """Wait for what the store does in the background."""
    assert isinstance(service.store, dynamodb.DynamoDBStore)
    await asyncio.gather(*service.store._sweeps)


async def sweep(uri: str) -> None:
    """Have a new process create a session of the app, and remove what is left over of others."""
    async with create_session_service(uri) as service:
        await create(service, "sweeper", ttl=0)
        await swept(service)
        await service.delete_session(app_name=APP, user_id=USER, session_id="sweeper")


async def refusal(uri: str, kind: type[SessionStoreError] = StoreUnavailable) -> str:
    """Return the sentence that a check of the URI ends with."""
    sentence = ""
    try:
        async with create_session_service(uri) as service:
            await service.check()
    except kind as error:
        sentence = str(error)
    assert sentence.startswith("DynamoDB table ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


class TestTable:
    async def test_none_is_made_unasked(self, other_table: str) -> None:
        said = await refusal(other_table)
        assert "no such table" in said
        assert "sessions init" in said

    async def test_it_is_made_when_it_is_asked_for(self, uri: str, other_table: str) -> None:
        async with create_session_service(other_table) as service:
            for _ in range(2):
                await service.prepare()
        sdk, table = server.client(uri), urlsplit(other_table).netloc.rpartition("@")[2]
        made = sdk.describe_table(TableName=table)["Table"]
        assert made["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        ttl = sdk.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
        assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "purge_at"}

    async def test_of_many_that_start_together_one_makes_it(self, other_table: str) -> None:
        uri = with_options(other_table, create_table="true")
        services = [create_session_service(uri) for _ in range(4)]
        await asyncio.gather(*(create(each, f"s{place}") for place, each in enumerate(services)))
        listed = await services[0].list_sessions(app_name=APP, user_id=USER)
        assert len(listed.sessions) == len(services)
        for service in services:
            await service.close()

    async def test_one_with_other_keys_is_refused(self, uri: str, other_table: str) -> None:
        server.client(uri).create_table(
            TableName=urlsplit(other_table).netloc.rpartition("@")[2],
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        )
        assert "other keys than pk and sk" in await refusal(other_table)

    async def test_one_of_a_newer_version_is_refused(self, uri: str) -> None:
        async with create_session_service(uri) as service:
            await service.check()
        prefix = urlsplit(uri).path.strip("/")
        item = {"pk": {"S": f"{prefix}/schema"}, "sk": {"S": "version"}, "number": {"N": "2"}}
        table = urlsplit(uri).netloc.rpartition("@")[2]
        server.client(uri).put_item(TableName=table, Item=item)
        async with create_session_service(uri) as service:
            with pytest.raises(ConfigurationError, match="newer version"):
                await create(service)

    async def test_a_check_leaves_nothing(self, uri: str) -> None:
        async with create_session_service(uri) as service:
            await service.check()
        assert items(uri) == {}


class TestItems:
    @pytest.mark.parametrize("ttl", [0, "1h"])
    async def test_a_deleted_session_leaves_nothing(
        self, service: PersistentSessionService, uri: str, ttl: int | str
    ) -> None:
        session = await create(service, ttl=ttl, state={"own": 1})
        for number in range(30):
            await service.append_event(session, event(str(number), own=number))
        await service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert items(uri) == {}

    async def test_a_deletion_that_was_broken_off_is_finished(
        self, through: PersistentSessionService, between: Between, uri: str
    ) -> None:
        """Its process was killed, say, with the head gone and the events still there."""
        await through.append_event(await create(through, ttl=0, state={"own": 1}), event())
        between.expect("DeleteItem", failure("AccessDeniedException"))
        with pytest.raises(StoreUnavailable):
            await through.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert not await exists(through)
        listed = await through.list_sessions(app_name=APP)
        assert [session.id for session in listed.sessions] == ["first"]
        assert len(items(uri)) == 3 + 3
        platform_time.set_time_provider(lambda: time.time() + GRACE + 1)
        await sweep(uri)
        platform_time.reset_time_provider()
        assert {sk.split("/")[-1] for _, sk in items(uri) if "/" in sk} >= {"first"}
        assert len(items(uri)) == 3

    async def test_an_expired_session_leaves_nothing(
        self, service: PersistentSessionService, uri: str, clock: Callable[[float], None]
    ) -> None:
        for session_id, ttl in (("short", "1h"), ("long", "7d"), ("ever", 0)):
            session = await create(service, session_id, ttl=ttl, state={"own": 1})
            await service.append_event(session, event(session_id, user__kept=1))
        everything = items(uri)
        clock(HOUR + GRACE - 5)
        await sweep(uri)
        assert items(uri).keys() == everything.keys()
        clock(HOUR + GRACE + 5)
        await sweep(uri)
        left = items(uri)
        assert len(everything) - len(left) == 4
        assert not [name for name in left if "short" in "".join(name)]
        clock(7 * 24 * HOUR + GRACE + 5)
        await sweep(uri)
        assert len(items(uri)) == 1 + 4
        assert await exists(service, "ever")

    async def test_a_session_that_lives_on_is_looked_for_later(
        self, service: PersistentSessionService, uri: str, clock: Callable[[float], None]
    ) -> None:
        session = await create(service, ttl="1h")
        (before,) = [name for name in items(uri) if name[0].startswith("index")]
        clock(HOUR / 2)
        await service.append_event(session, event("still here"))
        clock(HOUR + GRACE + 5)
        await sweep(uri)
        (after,) = [name for name in items(uri) if name[0].startswith("index")]
        assert int(after[1].split("/")[0]) - int(before[1].split("/")[0]) == pytest.approx(
            HOUR / 2, abs=60
        )
        clock(HOUR)
        assert texts(await get(service)) == ["still here"]
        assert len((await service.list_sessions(app_name=APP)).sessions) == 1
        await service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert items(uri) == {}

    async def test_what_dynamodb_removes_first_is_missed_by_nobody(
        self, service: PersistentSessionService, uri: str, clock: Callable[[float], None]
    ) -> None:
        session = await create(service, ttl="1h", state={"own": 1})
        await service.append_event(session, event())
        assert isinstance(session, PersistentSession)
        (head,) = [item for name, item in items(uri).items() if name[1].startswith("head/")]
        assert session.expires_at is not None
        assert 0 < int(head["purge_at"]["N"]) - session.expires_at - GRACE <= 1
        key = {name: head[name] for name in ("pk", "sk")}
        server.client(uri).delete_item(TableName=urlsplit(uri).netloc.rpartition("@")[2], Key=key)
        clock(HOUR + GRACE + 5)
        await sweep(uri)
        assert items(uri) == {}

    async def test_an_expired_session_and_its_successor_are_kept_apart(
        self, service: PersistentSessionService, uri: str, clock: Callable[[float], None]
    ) -> None:
        old = await create(service, ttl="1h", state={"old": 1})
        for number in range(3):
            await service.append_event(old, event(f"old {number}"))
        clock(HOUR + 5)
        new = await create(service, state={"new": 1})
        await service.append_event(new, event("new"))
        for config in (None, GetSessionConfig(num_recent_events=2)):
            async with create_session_service(uri) as cold:
                assert texts(await get(cold, config=config)) == ["new"]
        assert len((await service.list_sessions(app_name=APP)).sessions) == 1
        assert len(items(uri)) == 8
        clock(HOUR + GRACE + 5)
        await sweep(uri)
        assert len(items(uri)) == 4
        stored = await get(service)
        assert (texts(stored), stored.state) == (["new"], {"new": 1})

    async def test_long_names_are_listed_as_they_are(
        self, service: PersistentSessionService
    ) -> None:
        long = {"app_name": "é" * 5_000, "user_id": "/" * 10_000}
        session = await create(service, "\0" * 10_000 + "x", **long)
        await service.append_event(session, event(user__a=1, app__b=2))
        for user_id in (long["user_id"], None):
            listed = await service.list_sessions(app_name=long["app_name"], user_id=user_id)
            (found,) = listed.sessions
            assert (found.app_name, found.user_id, found.id) == (*long.values(), session.id)
            assert found.state == {"user:a": 1, "app:b": 2}


class TestSizes:
    async def test_a_large_event_is_stored_in_parts_and_in_one_step(
        self, through: PersistentSessionService, between: Between
    ) -> None:
        session = await create(through)
        large = ["a" * 1_000_000, "é" * 800_000, "small", "b" * 400_000]
        for text in large:
            between.counted()
            await through.append_event(session, event(text))
            assert between.counted() == {WRITE: 1}
        assert texts(await get(through)) == large
        async with create_session_service(between.uri) as cold:
            for count in (2, 3):
                config = GetSessionConfig(num_recent_events=count)
                assert texts(await get(cold, config=config)) == large[-count:]
            assert texts(await get(cold)) == large
            await through.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
            assert not await exists(cold)

    @pytest.mark.parametrize(
        ("delta", "text", "match"),
        [
            ({}, "x" * 3_600_000, "keep large files as artifacts"),
            ({"key": "x" * 500_000}, "", "400 KB for the state"),
            ({"user:key": "x" * 500_000}, "", "400 KB for the state"),
            ({f"app:{number}": 1 for number in range(500)}, "", "at most 400 of one scope"),
            ({"x" * 70_000: 1}, "", "no name that long"),
        ],
        ids=["event", "state", "user state", "keys", "key"],
    )
    async def test_what_is_too_large_is_refused_and_changes_nothing(
        self, service: PersistentSessionService, delta: dict[str, Any], text: str, match: str
    ) -> None:
        session = await create(service, state={"before": 1})
        said = event(text, own=1)
        said.actions.state_delta |= delta
        with pytest.raises(ValueError, match=f"(?i){match}") as caught:
            await service.append_event(session, said)
        assert not isinstance(caught.value, SessionStoreError | StaleSessionError)
        for copy in (session, await get(service)):
            assert (copy.events, copy.state) == ([], {"before": 1})
        await service.append_event(session, event("fits", own=2))

    async def test_state_that_grows_too_large_is_refused_at_once(
        self, service: PersistentSessionService
    ) -> None:
        session = await create(service, state={"user:first": "x" * 300_000})
        with pytest.raises(ValueError, match="400 KB for the state"):
            await service.append_event(session, event(user__second="x" * 200_000, own=1))
        assert (await get(service)).state.keys() == {"user:first"}

    async def test_many_keys_fit(self, service: PersistentSessionService) -> None:
        session, said = await create(service), event()
        said.actions.state_delta = {f"user:key {number}": number for number in range(100)}
        await service.append_event(session, said)
        assert (await get(service)).state == said.actions.state_delta

    def test_no_update_is_longer_than_dynamodb_reads(self) -> None:
        update = state_update({str(number): b"" for number in range(MAX_KEYS_AT_ONCE)})
        assert len(update["UpdateExpression"]) <= 4_096


class TestRequests:
    """What the README says that an append and a read cost."""

    @pytest.mark.parametrize("length", [10, 1_000])
    async def test_an_append_is_one_and_a_read_is_two_at_once(
        self, through: PersistentSessionService, between: Between, uri: str, length: int
    ) -> None:
        await self._talk(through, uri, length)
        session = await get(through)
        assert len(session.events) == length
        between.counted()
        await through.append_event(session, event("more", own=1, user__n=1, app__n=1))
        assert between.counted() == {WRITE: 1}
        assert len((await get(through)).events) == length + 1
        assert between.calls[0][1].keys() != between.calls[1][1].keys()
        assert between.counted() == {READ: 1, QUERY: 1}
        assert len(await self._recent(through, 5)) == 5
        assert between.counted() == {READ: 1, QUERY: 1}
        async with create_session_service(between.uri) as cold:
            assert len(await self._recent(cold, 5)) == 5
            assert between.counted() == {READ: 1, QUERY: 1, "GetItem": 1}
        await through.list_sessions(app_name=APP, user_id=USER)
        assert between.counted() == {QUERY: 1, "GetItem": 1}
        await through.list_sessions(app_name=APP)
        assert between.counted() == {QUERY: 1, "GetItem": 1, "BatchGetItem": 1}
        await create(through, "another")
        assert between.counted() == {WRITE: 1, READ: 1}
        await through.delete_session(app_name=APP, user_id=USER, session_id="another")
        expected = {"GetItem": 1, WRITE: 1, "DeleteItem": 1, QUERY: 1, "BatchWriteItem": 1}
        assert between.counted() == expected

    @staticmethod
    async def _recent(service: PersistentSessionService, count: int) -> list[str | None]:
        return texts(await get(service, config=GetSessionConfig(num_recent_events=count)))

    @staticmethod
    async def _talk(service: PersistentSessionService, uri: str, length: int) -> None:
        """Store a long session, past the service, which would take its time."""
        session = await create(service)
        assert isinstance(session, PersistentSession)
        incarnation = session.position.incarnation
        pk = f"{urlsplit(uri).path.strip('/')}/events/{APP}/{USER}/{SESSION}"
        table, sdk = urlsplit(uri).netloc.rpartition("@")[2], server.client(uri)
        puts = []
        for revision in range(1, length + 1):
            said = event(str(revision), timestamp=float(revision))
            stored = StoredEvent(revision, said.timestamp, encode_event(said, {}))
            puts += [
                {"PutRequest": {"Item": item}} for item in event_items(pk, incarnation, stored)
            ]
        for start in range(0, len(puts), 25):
            sdk.batch_write_item(RequestItems={table: puts[start : start + 25]})
        sdk.update_item(
            TableName=table,
            Key={
                "pk": {"S": f"{urlsplit(uri).path.strip('/')}/user/{APP}/{USER}"},
                "sk": {"S": f"head/{SESSION}"},
            },
            UpdateExpression="SET revision = :length",
            ExpressionAttributeValues={":length": {"N": str(length)}},
        )

    async def test_a_time_to_live_that_was_forgotten_costs_one(
        self, through: PersistentSessionService, between: Between
    ) -> None:
        session = await create(through, ttl="2h")
        await create(through, "other", ttl="1h")
        assert isinstance(through.store, dynamodb.DynamoDBStore)
        through.store._ttls.clear()
        between.counted()
        for cost in (2, 1):
            await through.append_event(session, event())
            assert between.counted() == {WRITE: cost}
        assert isinstance(session, PersistentSession)
        assert session.ttl == 2 * HOUR
        assert session.expires_at == pytest.approx(time.time() + 2 * HOUR, abs=60)


class TestContention:
    async def test_a_conflict_is_another_try_with_another_token(
        self, through: PersistentSessionService, between: Between
    ) -> None:
        session = await create(through)
        between.calls.clear()
        for reason in ("TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"):
            between.expect(WRITE, failure(CANCELLED, "None", reason))
        await through.append_event(session, event("in the end"))
        tokens = [body["ClientRequestToken"] for name, body in between.calls if name == WRITE]
        assert len(set(tokens)) == len(tokens) == 4
        assert texts(await get(through)) == ["in the end"]

    async def test_a_conflict_that_does_not_end_is_given_up(
        self, through: PersistentSessionService, between: Between
    ) -> None:
        session = await create(through)
        between.expect(WRITE, *[failure(CANCELLED, "TransactionConflict")] * 1_000)
        async with create_session_service(between.uri, timeout=0.2) as hasty:
            with pytest.raises(StoreUnavailable, match="others kept changing the same items"):
                await hasty.append_event(session, event("never"))
        assert session.events == []

    async def test_a_conflict_does_not_hide_that_a_copy_is_old(
        self, through: PersistentSessionService, between: Between
    ) -> None:
        session = await create(through)
        await through.append_event(await get(through), event("first"))
        reasons = ("ConditionalCheckFailed", "TransactionConflict")
        between.expect(WRITE, failure(CANCELLED, "TransactionConflict"))
        with pytest.raises(StaleSessionError):
            await through.append_event(session, event("second"))
        between.expect(WRITE, failure(CANCELLED, *reasons))
        with pytest.raises(ValueError, match="deleted, or it has expired"):
            await through.append_event(await get(through), event("head is gone"))

    async def test_a_reply_that_was_lost_is_asked_for_with_the_same_token(
        self, through: PersistentSessionService, between: Between
    ) -> None:
        """DynamoDB would answer as the first time. The emulator refuses; the event is found."""
        session = await create(through)
        between.calls.clear()
        between.expect(WRITE, between.lose_reply)
        await through.append_event(session, event("once", own=1))
        tokens = [body["ClientRequestToken"] for name, body in between.calls if name == WRITE]
        assert len(tokens) == 2
        assert len(set(tokens)) == 1
        between.expect(WRITE, between.lose_reply)
        created = await create(through, "other", state={"user:n": 1})
        assert created.state == {"user:n": 1}
        assert texts(session) == texts(await get(through)) == ["once"]

    async def test_no_two_pauses_are_the_same_and_they_come_to_an_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Writers that were refused together must not come again together."""
        pauses: list[float] = []

        async def note(seconds: float) -> None:
            pauses.append(seconds)

        monkeypatch.setattr(asyncio, "sleep", note)
        patience = Patience(60)
        for tries in range(8):
            assert await patience.pause()
            assert 0 <= pauses[-1] <= min(PAUSE * 2**tries, LONGEST_PAUSE)
        assert len(set(pauses)) == 8
        assert not await Patience(-1).pause()

    async def test_closing_waits_for_what_is_under_way(
        self, through: PersistentSessionService, between: Between
    ) -> None:
        """The SDK would otherwise try in vain, and nobody know whether the event was stored."""
        session = await create(through)
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def late(request: web.Request, body: bytes) -> web.Response:
            arrived.set()
            await go_on.wait()
            return await between.forward(request, body)

        between.expect(WRITE, late)
        between.counted()
        append = asyncio.ensure_future(through.append_event(session, event("kept")))
        await arrived.wait()
        closing = asyncio.ensure_future(through.close())
        assert texts(await get(through)) == []
        assert not closing.done()
        go_on.set()
        await asyncio.gather(append, closing)
        assert between.counted()[WRITE] == 1
        assert texts(session) == texts(await get(through)) == ["kept"]

    async def test_a_read_in_the_midst_of_a_write_is_another_try(
        self, through: PersistentSessionService, between: Between
    ) -> None:
        await create(through)
        between.calls.clear()
        between.expect(READ, failure(CANCELLED, "TransactionConflict"))
        assert await exists(through)
        assert between.counted()[READ] == 2

    async def test_an_event_that_is_seen_late_is_waited_for(
        self, through: PersistentSessionService, between: Between
    ) -> None:
        session = await create(through)
        for number in range(3):
            await through.append_event(session, event(str(number)))

        async def without_the_last(request: web.Request, body: bytes) -> web.Response:
            reply = await between.forward(request, body)
            assert isinstance(reply.body, bytes)
            said = json.loads(reply.body)
            return web.json_response(said | {"Items": said["Items"][1:]})

        between.expect(QUERY, *[without_the_last] * 3)
        assert texts(await get(through)) == ["0", "1", "2"]

    async def test_an_event_that_is_not_there_is_damage(
        self,
        through: PersistentSessionService,
        between: Between,
        uri: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        session = await create(through)
        for number in range(3):
            await through.append_event(session, event(str(number)))
        (lost,) = [name for name in items(uri) if name[1].startswith("000000000002/")]
        prefix = urlsplit(uri).path.strip("/")
        key = {"pk": {"S": f"{prefix}/{lost[0]}"}, "sk": {"S": lost[1]}}
        server.client(uri).delete_item(TableName=urlsplit(uri).netloc.rpartition("@")[2], Key=key)
        monkeypatch.setattr(dynamodb, "SEEN_WITHIN", 0.1)
        async with create_session_service(uri) as cold:
            with pytest.raises(CorruptSession, match="is damaged: event 2 is missing"):
                await get(cold)
            assert texts(await get(cold, config=GetSessionConfig(num_recent_events=1))) == ["2"]

    async def test_a_session_that_goes_while_it_is_read_is_gone(
        self, through: PersistentSessionService, between: Between, uri: str
    ) -> None:
        await through.append_event(await create(through), event())

        async def after_its_deletion(request: web.Request, body: bytes) -> web.Response:
            await head_was_read.wait()
            async with create_session_service(uri) as other:
                await other.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
            return await between.forward(request, body)

        async def note(request: web.Request, body: bytes) -> web.Response:
            reply = await between.forward(request, body)
            head_was_read.set()
            return reply

        head_was_read = asyncio.Event()
        between.expect(READ, note)
        between.expect(QUERY, after_its_deletion)
        async with create_session_service(between.uri) as cold:
            assert not await exists(cold)

    async def test_what_a_batch_leaves_undone_is_done(
        self, through: PersistentSessionService, between: Between, uri: str
    ) -> None:
        await through.append_event(await create(through), event())
        prefix = urlsplit(uri).path.strip("/")
        table = urlsplit(uri).netloc.rpartition("@")[2]
        keys = [
            {"pk": {"S": f"{prefix}/user/{APP}/{USER}"}, "sk": {"S": sk}}
            for sk in ("head/first", "head/session", "state/first", "state/session", "state")
        ]
        between.expect(
            "BatchGetItem", answer(Responses={}, UnprocessedKeys={table: {"Keys": keys}})
        )
        assert len((await through.list_sessions(app_name=APP)).sessions) == 2

        async def nothing(request: web.Request, body: bytes) -> web.Response:
            return web.json_response({"UnprocessedItems": json.loads(body)["RequestItems"]})

        between.expect("BatchWriteItem", *[nothing] * 3)
        for session_id in ("first", SESSION):
            await through.delete_session(app_name=APP, user_id=USER, session_id=session_id)
        assert items(uri) == {}

    async def test_many_writers_of_app_state_all_get_through(
        self, through: PersistentSessionService, between: Between
    ) -> None:
        sessions = [await create(through, f"s{number}") for number in range(8)]
        between.expect(WRITE, *[failure(CANCELLED, "None", "TransactionConflict")] * 12)

        async def append(place: int) -> None:
            said = event()
            said.actions.state_delta = {f"app:{place}": place}
            await through.append_event(sessions[place], said)

        await asyncio.gather(*map(append, range(8)))
        state = (await get(through, "first")).state
        assert state == {f"app:{place}": place for place in range(8)}


ARN = "arn:aws:iam::123456789012:user/ada"
DENIED = f"User: {ARN} is not authorized to perform: dynamodb:PutItem on resource: {ARN}"


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "message", "match"),
        [
            ("UnrecognizedClientException", "The security token is invalid", "the credentials;"),
            ("InvalidSignatureException", "Signature expired", "the secret key, and the clock"),
            ("ExpiredTokenException", "expired", "have expired; renew them"),
            ("AccessDeniedException", DENIED, "dynamodb:PutItem is not allowed; grant"),
            ("AccessDeniedException", "no", "access is denied; grant"),
            ("SomethingNew", "in two\nlines", "SomethingNew: in two lines"),
        ],
    )
    async def test_what_dynamodb_refuses_is_told_in_a_sentence(
        self,
        through: PersistentSessionService,
        between: Between,
        code: str,
        message: str,
        match: str,
    ) -> None:
        session = await create(through)
        between.expect(WRITE, failure(code, message=message))
        with pytest.raises(StoreUnavailable, match=match) as caught:
            await through.append_event(session, event("no", own=1))
        assert "arn:" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert (session.events, session.state) == ([], {})
        between.expect(WRITE, failure(code, message=message))
        assert match.split(";")[0] in await refusal(between.uri)

    async def test_throttling_is_waited_for(
        self, through: PersistentSessionService, between: Between
    ) -> None:
        session = await create(through)
        between.expect(WRITE, *[failure("ThrottlingException")] * 2)
        await through.append_event(session, event("later"))
        assert texts(await get(through)) == ["later"]

    async def test_a_missing_permission_is_found_at_the_start(self, between: Between) -> None:
        for operation in (WRITE, READ, QUERY, "BatchGetItem", "BatchWriteItem", "GetItem"):
            between.expect(operation, failure("AccessDeniedException", message=DENIED))
            assert "dynamodb:PutItem is not allowed" in await refusal(between.uri)

    async def test_nobody_listens(self, uri: str) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            said = await refusal(
                with_options(uri, endpoint_url=f"http://127.0.0.1:{port}", timeout=1)
            )
        assert "cannot be reached" in said or "in time" in said

    async def test_somebody_listens_and_never_answers(self, uri: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            endpoint = f"http://127.0.0.1:{port}"
            said = await refusal(with_options(uri, endpoint_url=endpoint, timeout=0.3))
        assert "did not answer in time" in said

    async def test_no_tls_where_tls_is_asked_for(
        self, between: Between, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        endpoint = options(between.uri)["endpoint_url"].replace("http:", "https:")
        assert "TLS" in await refusal(with_options(between.uri, endpoint_url=endpoint))

    @pytest.mark.parametrize(
        "rest",
        ["", "no", "a b c", "sessions/a/b", "sessions/é", "key@sessions", "sessions?timeout=0"],
    )
    def test_uris_that_cannot_work_are_refused_at_once(self, rest: str) -> None:
        with pytest.raises(ConfigurationError):
            create_session_service(f"{SCHEME}://{rest}")

    @pytest.mark.parametrize(
        "url", ["localhost:8000", "ftp://host", "http://", "http://u:secret@h"]
    )
    def test_an_endpoint_is_a_url(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="endpoint_url"):
            create_session_service(f"{SCHEME}://sessions", endpoint_url=url)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which the SDK finds nothing."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


class TestTheSDKsSettings:
    """Where the URI says nothing, what counts is what counts for every program that uses the SDK."""

    async def test_endpoint_region_and_credentials_may_come_from_it(
        self, between: Between, bare: pytest.MonkeyPatch
    ) -> None:
        bare.setenv("AWS_ENDPOINT_URL_DYNAMODB", options(between.uri)["endpoint_url"])
        bare.setenv("AWS_DEFAULT_REGION", options(between.uri)["region"])
        bare.setenv("AWS_ACCESS_KEY_ID", urlsplit(between.uri).username or "")
        bare.setenv("AWS_SECRET_ACCESS_KEY", urlsplit(between.uri).password or "")
        parts = urlsplit(with_options(between.uri, endpoint_url=None, region=None))
        uri = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        async with create_session_service(uri) as service:
            await create(service)
            assert await exists(service)
        assert between.counted()[READ]

    async def test_how_often_it_tries_may_come_from_it(
        self, between: Between, bare: pytest.MonkeyPatch
    ) -> None:
        bare.setenv("AWS_MAX_ATTEMPTS", "2")
        bare.setenv("AWS_RETRY_MODE", "standard")
        async with create_session_service(between.uri) as service:
            session = await create(service)
            await swept(service)
            between.counted()
            between.expect(WRITE, *[failure("ThrottlingException")] * 2)
            with pytest.raises(StoreUnavailable, match="throttled"):
                await service.append_event(session, event())
            assert between.counted() == {WRITE: 2}

    async def test_credentials_in_the_uri_keep_it_from_reading_files(
        self, uri: str, bare: pytest.MonkeyPatch
    ) -> None:
        bare.setenv("AWS_PROFILE", "of-somebody")
        async with create_session_service(uri) as service:
            await service.check()

    async def test_without_credentials_nothing_is_sent(
        self, uri: str, bare: pytest.MonkeyPatch
    ) -> None:
        parts = urlsplit(uri)
        uri = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        assert "finds no credentials" in await refusal(uri, ConfigurationError)

    async def test_an_unknown_profile_is_named_as_such(
        self, uri: str, bare: pytest.MonkeyPatch
    ) -> None:
        parts = urlsplit(with_options(uri, profile="of-nobody"))
        uri = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        assert "no such profile" in await refusal(uri, ConfigurationError)

    async def test_without_a_region_nothing_is_sent(
        self, uri: str, bare: pytest.MonkeyPatch
    ) -> None:
        assert "no region" in await refusal(with_options(uri, region=None), ConfigurationError)
