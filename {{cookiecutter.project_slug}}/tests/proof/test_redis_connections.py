"""Connections to Redis under stress: none is lost, none is left over, no reply meets another's call."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from {{ cookiecutter.__package }}.sessions.redis import connections
from {{ cookiecutter.__package }}.sessions.redis.store import RedisStore
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import proxy
from ..servers import redis as server
from ..servers.proxy import Fault, Proxy
from ..sessions.support import APP, USER, create, event, exists, get, texts, until
from .figures import Figure, repetitions
from .redis_services import open_service


@pytest.fixture
def own_uri(tmp_path: Path) -> Iterator[str]:
    """A server that a test may break."""
    with server.serve(tmp_path, "redis") as uri:
        yield uri


@pytest.fixture
def own_server(own_uri: str) -> Iterator["redis.Redis"]:
    """A client of that server, to break it with."""
    with redis.Redis(port=urlsplit(own_uri).port or 0) as client:
        yield client


@pytest.fixture
async def proxied(own_uri: str) -> AsyncIterator[tuple[Proxy, PersistentSessionService]]:
    """A proxy before that server, and a service that goes through it."""
    async with proxy.run(*proxy.address(own_uri)) as between:
        uri = f"redis://127.0.0.1:{between.port}/0"
        async with open_service(uri, socket_timeout=30) as service:
            yield between, service


@pytest.fixture
async def impatient(own_uri: str) -> AsyncIterator[tuple[Proxy, PersistentSessionService]]:
    """The same, with a service that waits for two seconds in all."""
    async with proxy.run(*proxy.address(own_uri)) as between:
        uri = f"redis://127.0.0.1:{between.port}/0"
        async with open_service(uri, socket_timeout=2) as service:
            yield between, service


def connections_of(client: "redis.Redis") -> int:
    """Return how many connections the server has besides that of this client."""
    return len(client.client_list(_type="normal")) - 1


def scripts_run(client: "redis.Redis") -> int:
    """Return how many scripts the server has run."""
    calls: int = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    return calls


class TestLimits:
    async def test_calls_wait_when_all_connections_are_in_use(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with open_service(own_uri, max_connections=3) as service:
            await asyncio.gather(*(create(service, str(n)) for n in range(40)))
            listed = await asyncio.gather(
                *(service.list_sessions(app_name=APP, user_id=USER) for _ in range(40))
            )
            assert connections_of(own_server) <= 3
        assert [len(each.sessions) for each in listed] == [40] * 40

    async def test_appends_that_come_together_get_their_own_answers(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with open_service(own_uri) as service:
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


class TestCancellation:
    async def test_cancelled_calls_do_not_disturb_the_others(
        self, proxied: tuple[Proxy, PersistentSessionService], own_server: "redis.Redis"
    ) -> None:
        """Half of the calls are cancelled after the server has done what they ask, before its replies."""
        between, service = proxied
        sessions = [await create(service, str(number)) for number in range(20)]
        while connections_of(own_server) < len(sessions):
            await asyncio.gather(
                *(service.append_event(each, event("before")) for each in sessions)
            )
        before = own_server.info("stats")["total_connections_received"]
        stored = [texts(await get(service, each.id)) for each in sessions]
        executed = scripts_run(own_server)
        said = [event("said") for _ in sessions]
        between.flowing.clear()
        calls = [
            asyncio.ensure_future(service.append_event(each, own))
            for each, own in zip(sessions, said, strict=True)
        ]
        await until(lambda: scripts_run(own_server) == executed + len(calls))
        for call in calls[::2]:
            call.cancel()
        await asyncio.wait(calls[::2])
        between.flowing.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["CancelledError", "Event"] * 10
        for each, own in zip(sessions[::2], said[::2], strict=True):
            await service.append_event(each, own)
        for each, earlier in zip(sessions, stored, strict=True):
            assert texts(await get(service, each.id)) == [*earlier, "said"]
        opened = own_server.info("stats")["total_connections_received"] - before
        assert opened <= len(calls) / 2

    async def test_replies_reach_their_own_calls(self, own_uri: str, figure: Figure) -> None:
        """Calls are cancelled at every step, and each of the others gets back what it said."""
        async with open_service(own_uri, max_connections=4) as service:
            store = service.store.innermost
            assert isinstance(store, RedisStore)
            rounds = repetitions(300, 40)
            for number in range(rounds):
                words = [f"{number} {word}".encode() for word in range(12)]
                calls = [asyncio.ensure_future(store.call("ECHO", word)) for word in words]
                for call in random.sample(calls, 6):
                    for _ in range(random.randrange(20)):
                        await asyncio.sleep(0)
                    call.cancel()
                replies = await asyncio.gather(*calls, return_exceptions=True)
                for word, reply in zip(words, replies, strict=True):
                    assert reply == word or isinstance(reply, asyncio.CancelledError)
            figure("cancelled", 6 * rounds)

    @pytest.mark.parametrize("steps", range(0, 60, 4))
    async def test_close_does_not_mix_up_replies(self, own_uri: str, steps: int) -> None:
        async with open_service(own_uri) as service:
            store = service.store.innermost
            assert isinstance(store, RedisStore)
            for _ in range(2):
                words = [f"{number}".encode() for number in range(6)]
                calls = [asyncio.ensure_future(store.call("ECHO", word)) for word in words]
                for _ in range(steps):
                    await asyncio.sleep(0)
                await service.close()
                assert await asyncio.gather(*calls) == words
            assert await store.call("ECHO", b"in the end") == b"in the end"

    async def test_calls_under_way_end_before_the_service_is_closed(
        self, proxied: tuple[Proxy, PersistentSessionService], own_server: "redis.Redis"
    ) -> None:
        between, service = proxied
        session = await create(service)
        await service.append_event(session, event())
        between.delay = 0.2
        calls: list[asyncio.Future[Any]] = [asyncio.ensure_future(get(service)) for _ in range(3)]
        calls.append(asyncio.ensure_future(service.append_event(session, event())))
        await asyncio.sleep(0.05)
        await service.close()
        await asyncio.gather(*calls)
        between.delay = 0.0
        await until(lambda: connections_of(own_server) == 0)
        assert await exists(service)


class TestFailures:
    async def test_call_on_a_silent_connection_is_retried(
        self, impatient: tuple[Proxy, PersistentSessionService]
    ) -> None:
        between, service = impatient
        first, second = await create(service, "first"), await create(service, "second")
        between.fault = Fault.SILENCE
        delayed = asyncio.ensure_future(service.append_event(first, event("in the end")))
        await asyncio.sleep(0.1)
        between.fault = Fault.NONE
        await service.append_event(second, event("at once"))
        assert not delayed.done()
        await delayed
        assert texts(await get(service, "first")) == ["in the end"]
        assert texts(await get(service, "second")) == ["at once"]

    async def test_silent_server_is_given_up(
        self, impatient: tuple[Proxy, PersistentSessionService]
    ) -> None:
        between, service = impatient
        session = await create(service)
        between.fault = Fault.SILENCE
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await service.append_event(session, event())

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows stops no process")
    async def test_server_that_does_not_read_is_given_up(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        process = own_server.info("server")["process_id"]
        async with open_service(own_uri, socket_timeout=3) as service:
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
            await until(lambda: connections_of(own_server) <= 3)  # one for each call

    async def test_long_idle_connection_is_checked_first(
        self, own_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connections, "HEALTH_CHECK_SECONDS", 0.001)
        async with proxy.run(*proxy.address(own_uri)) as between:
            uri = f"redis://127.0.0.1:{between.port}/0"
            async with open_service(uri, socket_timeout=2) as service:
                session = await create(service)
                await asyncio.sleep(0.01)
                before = between.round_trips
                await service.append_event(session, event("first"))
                assert between.round_trips - before >= 2, "a PING comes before"
                between.forget()
                await asyncio.sleep(0.01)
                await service.append_event(session, event("second"))
                assert texts(await get(service)) == ["first", "second"]

    async def test_scripts_come_back_to_a_server_that_forgot_them(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with open_service(own_uri) as service:
            session = await create(service)
            await service.append_event(session, event("first"))
            own_server.script_flush()
            await service.append_event(session, event("second"))
            assert texts(await get(service)) == ["first", "second"]

    async def test_sentinel_failover_is_followed(self, tmp_path: Path) -> None:
        folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
        for folder in folders:
            folder.mkdir()
        with ExitStack() as running, ExitStack() as doomed:
            master = doomed.enter_context(server.serve(folders[0], "redis"))
            follow = {"replicaof": f"127.0.0.1 {urlsplit(master).port}"}
            replica = running.enter_context(server.serve(folders[1], "redis", **follow))
            sentinels = server.serve_sentinel(folders[2], "redis", master, "agents")
            uri = running.enter_context(sentinels)
            async with open_service(uri, socket_timeout=3) as service:
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


def use_loops_of_all_kinds(uri: str) -> None:
    """Use a service from loops that are run by asyncio, closed by hand, dropped, and left open at the end."""
    service = open_service(uri)
    asyncio.run(create(service))
    for _ in range(20):
        asyncio.run(get(service))
        loop = asyncio.new_event_loop()
        loop.run_until_complete(get(service))
        loop.close()
        asyncio.new_event_loop().run_until_complete(get(service))


async def test_event_loops_end_without_warnings(own_uri: str) -> None:
    call = f"from {__name__} import use_loops_of_all_kinds as use; use({own_uri!r})"
    root = Path(__file__).parents[2]
    done = await asyncio.to_thread(
        lambda: subprocess.run(
            [sys.executable, "-c", call], cwd=root, capture_output=True, text=True, check=False
        )
    )
    assert (done.returncode, done.stderr) == (0, "")
