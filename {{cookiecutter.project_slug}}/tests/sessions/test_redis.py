"""What is particular to Redis: its keys and what is left of them, its errors, its round trips."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from redis.crc import key_slot

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    StoreUnavailable,
)
from {{ cookiecutter.__package }}.sessions.redis.store import RedisStore
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import proxy
from ..servers import redis as server
from ..servers.proxy import Proxy, Weather
from .support import APP, USER, create, event, exists, get, texts, until


@pytest.fixture
def own_uri(tmp_path: Path) -> Iterator[str]:
    """A server that a test may break."""
    with server.serve(tmp_path, SCHEME) as uri:
        yield uri


@pytest.fixture
def own_server(own_uri: str) -> Iterator["redis.Redis"]:
    """A client of that server, to break it with."""
    with redis.Redis(port=urlsplit(own_uri).port or 0) as client:
        yield client


@pytest.fixture
async def proxied(own_uri: str) -> AsyncIterator[tuple[Proxy, PersistentSessionService]]:
    """A proxy before that server, and a service that goes through it."""
    port = urlsplit(own_uri).port or 0
    async with proxy.run("127.0.0.1", port) as between:
        uri = f"{SCHEME}://127.0.0.1:{between.port}/0?socket_timeout=2"
        async with create_session_service(uri) as service:
            yield between, service


async def refusal(uri: str) -> str:
    """Return the sentence that a check of the URI ends with."""
    sentence = ""
    try:
        async with create_session_service(uri) as service:
            await service.check()
            await create(service)
    except StoreUnavailable as error:
        sentence = str(error)
    assert sentence.startswith("Redis at ")
    assert sentence.count("\n") == 0
    return sentence


class TestKeys:
    async def test_all_keys_of_a_user_are_in_one_slot(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri) as service:
            for session_id in ("a", "{b}", "c}d{e"):
                session = await create(service, session_id, user_id="{u}1", state={"user:x": 1})
                await service.append_event(session, event())
        keys = list(own_server.scan_iter())
        assert len({key_slot(key) for key in keys if b"%7Bu%7D1" in key}) == 1
        assert len(keys) == 3 * 2 + 2 + 1

    async def test_deleted_sessions_leave_nothing_behind(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri, ttl=0) as service:
            for session_id in ("first", "second"):
                await service.append_event(await create(service, session_id), event())
            for session_id in ("first", "second"):
                await service.delete_session(app_name=APP, user_id=USER, session_id=session_id)
        assert list(own_server.scan_iter()) == []

    async def test_expired_sessions_leave_nothing_behind(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri, ttl=1) as service:
            for session_id in ("first", "second"):
                session = await create(service, session_id)
                await service.append_event(session, event(user__kept=1))
        for _ in range(600):
            await asyncio.sleep(0.05)
            if len(keys := list(own_server.scan_iter())) == 1:
                break
        assert keys == [b"sessions:{app/user}:state"]

    async def test_every_key_of_a_session_has_a_time_to_live(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri, ttl="1h") as service:
            await service.append_event(await create(service), event())
        for key in own_server.scan_iter():
            listed = 2 if key.endswith((b":sessions", b":users")) else 1
            assert 3_500 < own_server.ttl(key) <= listed * 3_600, key

    async def test_a_session_is_listed_as_long_as_it_lives(self, own_uri: str) -> None:
        async with create_session_service(own_uri, ttl=4) as service:
            session = await create(service)
            for _ in range(4):
                await asyncio.sleep(1.5)
                await service.append_event(session, event())
                for user_id in (USER, None):
                    listed = await service.list_sessions(app_name=APP, user_id=user_id)
                    assert [found.id for found in listed.sessions] == [session.id]

    async def test_the_index_outlives_the_session_that_lives_longest(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri, ttl=10) as service:
            await service.create_session(app_name=APP, user_id=USER, session_id="long", ttl=100)
            await create(service, "short")
            assert own_server.ttl("sessions:{app/user}:sessions") > 90
            await service.create_session(app_name=APP, user_id=USER, session_id="ever", ttl=0)
            assert own_server.ttl("sessions:{app/user}:sessions") == -1
            await service.delete_session(app_name=APP, user_id=USER, session_id="ever")
            assert own_server.ttl("sessions:{app}:users") > 90


class TestRoundTrips:
    @pytest.mark.parametrize("length", [10, 1_000])
    async def test_an_append_and_a_read_cost_one(
        self, proxied: tuple[Proxy, PersistentSessionService], length: int
    ) -> None:
        between, service = proxied
        session = await create(service)
        for number in range(length):
            await service.append_event(session, event(str(number), n=number, user__n=number))
        await get(service)
        await service.list_sessions(app_name=APP, user_id=USER)
        before = between.round_trips
        await service.append_event(session, event("one more", app__n=1))
        assert between.round_trips - before == 1
        await get(service)
        assert between.round_trips - before == 2
        await service.list_sessions(app_name=APP, user_id=USER)
        assert between.round_trips - before == 3

    async def test_appends_that_come_together_share_round_trips(
        self, proxied: tuple[Proxy, PersistentSessionService]
    ) -> None:
        between, service = proxied
        sessions = [await create(service, str(number)) for number in range(40)]
        before = between.round_trips
        await asyncio.gather(*(service.append_event(each, event("said")) for each in sessions))
        assert between.round_trips - before < 20
        found = [await get(service, each.id) for each in sessions]
        assert [texts(each) for each in found] == [["said"]] * 40

    async def test_of_appends_that_come_together_each_has_its_own_answer(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri) as service:
            sessions = [await create(service, str(number)) for number in range(40)]
            for each in sessions[::4]:
                await service.append_event(await get(service, each.id), event("before"))
            for each in sessions[1::4]:
                await service.delete_session(app_name=APP, user_id=USER, session_id=each.id)
            own_server.script_flush()
            answers = await asyncio.gather(
                *(service.append_event(each, event("said")) for each in sessions),
                return_exceptions=True,
            )
            kinds = [type(answer).__name__ for answer in answers]
            assert kinds == ["StaleSessionError", "SessionNotFoundError", "Event", "Event"] * 10


class TestConnections:
    """Calls share them, and no caller's trouble is another's."""

    async def test_few_are_opened_by_many_calls(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri) as service:
            before = own_server.info("stats")["total_connections_received"]
            sessions = await asyncio.gather(*(create(service, str(n)) for n in range(40)))
            for _ in range(5):
                await asyncio.gather(*(service.append_event(each, event()) for each in sessions))
            opened = own_server.info("stats")["total_connections_received"] - before
        assert opened == 1

    async def test_never_more_than_are_allowed(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri, max_connections=3) as service:
            before = own_server.info("stats")["total_connections_received"]
            await asyncio.gather(*(create(service, str(n)) for n in range(40)))
            listed = await asyncio.gather(
                *(service.list_sessions(app_name=APP, user_id=USER) for _ in range(40))
            )
            opened = own_server.info("stats")["total_connections_received"] - before
        assert [len(each.sessions) for each in listed] == [40] * 40
        assert opened <= 3

    async def test_who_gives_up_takes_nobody_along(
        self, proxied: tuple[Proxy, PersistentSessionService], own_server: "redis.Redis"
    ) -> None:
        between, service = proxied
        sessions = [await create(service, str(number)) for number in range(20)]
        await service.append_event(sessions[0], event("before"))
        opened = own_server.info("stats")["total_connections_received"]
        between.delay = 0.2
        calls = [asyncio.ensure_future(service.append_event(e, event("said"))) for e in sessions]
        await asyncio.sleep(0.05)
        for call in calls[::2]:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        between.delay = 0.0
        cancelled = [isinstance(result, asyncio.CancelledError) for result in results]
        assert cancelled == [True, False] * 10
        for each in sessions:
            assert texts(await get(service, each.id))[-1:] == ["said"]
        assert own_server.info("stats")["total_connections_received"] == opened

    async def test_when_one_call_waits_in_vain_later_ones_are_sent_again(
        self, proxied: tuple[Proxy, PersistentSessionService]
    ) -> None:
        between, service = proxied
        first, second = await create(service, "first"), await create(service, "second")
        await service.append_event(first, event("before"))
        await service.append_event(second, event("before"))
        between.weather = Weather.SILENCE
        in_vain = asyncio.ensure_future(service.append_event(first, event("too early")))
        await asyncio.sleep(1.5)
        later = asyncio.ensure_future(service.append_event(second, event("in the end")))
        await asyncio.sleep(0.1)
        between.weather = Weather.FINE
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await in_vain
        await later
        assert texts(await get(service, "second")) == ["before", "in the end"]

    async def test_calls_that_are_under_way_when_the_service_is_closed_come_to_their_end(
        self, proxied: tuple[Proxy, PersistentSessionService], own_server: "redis.Redis"
    ) -> None:
        between, service = proxied
        session = await create(service)
        await service.append_event(session, event())
        await get(service)
        between.delay = 0.2
        calls: list[asyncio.Future[Any]] = [asyncio.ensure_future(get(service)) for _ in range(3)]
        calls.append(asyncio.ensure_future(service.append_event(session, event())))
        await asyncio.sleep(0.05)
        await service.close()
        await asyncio.gather(*calls)
        between.delay = 0.0
        await until(lambda: len(own_server.client_list(_type="normal")) == 1)  # which is ours
        assert await exists(service)

    @pytest.mark.parametrize("steps", range(0, 60, 2))
    async def test_no_reply_meets_another_call_whenever_a_service_is_closed(
        self, own_uri: str, steps: int
    ) -> None:
        async with create_session_service(own_uri) as service:
            store = service.store
            assert isinstance(store, RedisStore)
            for _ in range(2):
                said = [f"{number}".encode() for number in range(6)]
                calls = [asyncio.ensure_future(store.call("ECHO", word)) for word in said]
                for _ in range(steps):
                    await asyncio.sleep(0)
                await service.close()
                replies = await asyncio.gather(*calls, return_exceptions=True)
                for word, reply in zip(said, replies, strict=True):
                    assert reply == word or "closed" in str(reply)
            assert await store.call("ECHO", b"in the end") == b"in the end"

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows stops no process")
    async def test_a_server_that_does_not_even_read_is_given_up(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        process = own_server.info("server")["process_id"]
        async with create_session_service(own_uri, socket_timeout=1) as service:
            session, other = await create(service), await create(service, "other")
            os.kill(process, signal.SIGSTOP)
            try:
                results = await asyncio.gather(
                    service.append_event(session, event("x" * 20_000_000)),
                    service.append_event(other, event("small")),
                    return_exceptions=True,
                )
            finally:
                os.kill(process, signal.SIGCONT)
            assert [type(result) for result in results] == [StoreUnavailable] * 2
            assert await exists(service)
            await until(lambda: len(own_server.client_list(_type="normal")) == 2)  # theirs and ours

    async def test_one_that_nobody_used_for_long_is_tried_first(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        port = urlsplit(own_uri).port or 0
        async with proxy.run("127.0.0.1", port) as between:
            uri = f"{SCHEME}://127.0.0.1:{between.port}/0?health_check_interval=0.001"
            async with create_session_service(uri, socket_timeout=4) as service:
                session = await create(service)
                await asyncio.sleep(0.01)
                before = between.round_trips
                await service.append_event(session, event("first"))
                assert between.round_trips - before >= 2, "a PING comes before"
                between.forget()
                await asyncio.sleep(0.01)
                await service.append_event(session, event("second"))
                assert texts(await get(service)) == ["first", "second"]


class TestSentinel:
    async def test_the_master_is_found(
        self, own_uri: str, own_server: "redis.Redis", tmp_path: Path
    ) -> None:
        with server.serve_sentinel(tmp_path, SCHEME, own_uri, "agents") as uri:
            async with create_session_service(uri) as service:
                session = await create(service)
                await asyncio.gather(*(get(service) for _ in range(10)))
                own_server.client_kill_filter(_type="normal", skipme=True)
                await service.append_event(session, event("found"))
                assert texts(await get(service)) == ["found"]
        assert own_server.exists("sessions:{app/user}:s:session")

    async def test_when_the_master_is_gone_another_takes_over(self, tmp_path: Path) -> None:
        places = [tmp_path / name for name in ("master", "replica", "sentinel")]
        for place in places:
            place.mkdir()
        with ExitStack() as running, ExitStack() as doomed:
            master = doomed.enter_context(server.serve(places[0], SCHEME))
            follow = {"replicaof": f"127.0.0.1 {urlsplit(master).port}"}
            replica = running.enter_context(server.serve(places[1], SCHEME, **follow))
            uri = running.enter_context(server.serve_sentinel(places[2], SCHEME, master, "agents"))
            async with create_session_service(uri, socket_timeout=1) as service:
                session = await create(service)
                await service.append_event(session, event("before"))
                with redis.Redis(port=urlsplit(master).port or 0) as client:
                    await until(lambda: client.wait(1, 1_000) == 1)
                with redis.Redis(port=urlsplit(uri).port or 0) as sentinel:

                    def has_taken_over() -> bool:
                        known = sentinel.sentinel_master("agents")
                        return known["port"] == urlsplit(replica).port and not known["is_sdown"]

                    await until(lambda: len(sentinel.sentinel_slaves("agents")) == 1)
                    doomed.close()
                    await until(has_taken_over)
                said = event("after")
                for _ in range(100):  # the sentinel may look twice
                    with suppress(StoreUnavailable):
                        await service.append_event(session, said)
                        break
                    await asyncio.sleep(0.1)
                assert texts(await get(service)) == ["before", "after"]

    async def test_a_service_that_no_sentinel_knows(self, own_uri: str, tmp_path: Path) -> None:
        with server.serve_sentinel(tmp_path, SCHEME, own_uri, "agents") as uri:
            said = await refusal(uri.replace("agents", "others"))
        assert "others" in said


class TestBadWeather:
    async def test_a_server_that_forgot_the_scripts_gets_them_again(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri) as service:
            session = await create(service)
            await service.append_event(session, event("first"))
            own_server.script_flush()
            await service.append_event(session, event("second"))
            assert texts(await get(service)) == ["first", "second"]

    async def test_dropped_connections_are_replaced(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri) as service:
            session = await create(service)
            own_server.client_kill_filter(_type="normal", skipme=True)
            await service.append_event(session, event("after"))
            assert texts(await get(service)) == ["after"]


class TestErrors:
    async def test_nobody_listens(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            said = await refusal(f"{SCHEME}://127.0.0.1:{port}/0")
        assert "cannot be reached" in said

    async def test_somebody_else_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            said = await refusal(f"{SCHEME}://127.0.0.1:{port}/0?socket_timeout=0.2")
        assert "did not answer in time" in said

    async def test_wrong_credentials(self, own_uri: str, own_server: "redis.Redis") -> None:
        own_server.config_set("requirepass", "right")
        port = urlsplit(own_uri).port
        for credentials in ("", ":wrong@", "nobody:wrong@"):
            said = await refusal(f"{SCHEME}://{credentials}127.0.0.1:{port}/0")
            assert "refuses the credentials" in said
            assert "wrong" not in said

    async def test_a_user_without_permission(self, own_uri: str, own_server: "redis.Redis") -> None:
        own_server.acl_setuser(
            "reader", enabled=True, passwords=["+secret"], keys=["*"], commands=["+get"]
        )
        said = await refusal(own_uri.replace("://", "://reader:secret@"))
        assert "lacks permission" in said

    async def test_a_replica(self, own_uri: str, own_server: "redis.Redis") -> None:
        own_server.slaveof("127.0.0.1", 1)
        assert "it is a replica" in await refusal(own_uri)

    async def test_full_memory_changes_nothing(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri) as service:
            session = await create(service)
            own_server.config_set("maxmemory", 1)
            with pytest.raises(StoreUnavailable, match="memory is full"):
                await service.append_event(session, event("too much", own=1))
            own_server.config_set("maxmemory", 0)
            assert session.events == []
            assert session.state == (await get(service)).state == {}

    async def test_no_tls_where_tls_is_asked_for(self, own_uri: str) -> None:
        uri = own_uri.replace(f"{SCHEME}://", f"{SCHEME}s://")
        said = await refusal(f"{uri}?socket_connect_timeout=0.2")
        assert "TLS" in said

    async def test_a_database_that_is_not_there(self, own_uri: str) -> None:
        assert "no database of that number" in await refusal(own_uri.replace("/0", "/4711"))

    @pytest.mark.parametrize(
        "uri", ["localhost/name", "localhost:port/0", "localhost/1?cluster=true", "h?prefix={x}"]
    )
    def test_uris_that_cannot_work_are_refused_at_once(self, uri: str) -> None:
        with pytest.raises(ConfigurationError):
            create_session_service(f"{SCHEME}://{uri}")


async def test_a_unix_socket_is_a_way_in(tmp_path: Path) -> None:
    path = tmp_path / "valkey.sock"
    with server.serve(tmp_path, SCHEME, unixsocket=path):
        async with create_session_service(f"{SCHEME}+unix://{path}?db=1") as service:
            await create(service)
            assert await exists(service)
