"""PostgreSQL: round trips, network failures, cancelled calls, and connections of event loops."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from weakref import ref

import asyncpg
import pytest

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from {{ cookiecutter.__package }}.sessions.postgres import connections, store
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import postgres as server
from ..servers import proxy
from ..servers.proxy import Fault, Proxy
from ..sessions.support import APP, USER, create, event, exists, get, texts, until

Proxied = tuple[Proxy, PersistentSessionService]


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, whose settings the tests may change."""
    with server.serve(tmp_path_factory.mktemp("own"), SCHEME) as uri:
        yield uri


@pytest.fixture
def uri(own_server: str) -> Iterator[str]:
    """An empty database on that server."""
    with server.database(own_server) as uri:
        yield uri


@pytest.fixture
async def between(uri: str) -> AsyncIterator[Proxy]:
    """A proxy in front of that server."""
    async with proxy.run(*proxy.address(uri)) as between:
        yield between


@pytest.fixture
async def proxied(uri: str, between: Proxy) -> AsyncIterator[Proxied]:
    """The proxy, and a service with one connection through it."""
    detour = proxy.through(uri, between.port)
    async with create_session_service(detour, max_connections=1) as service:
        yield between, service


class TestRoundTrips:
    @pytest.mark.parametrize("length", [10, 1_000])
    async def test_append_read_and_list_cost_one_round_trip_each(
        self, proxied: Proxied, length: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        between, service = proxied
        monkeypatch.setattr(store, "CLEAN_EVERY", 1_000.0)
        session = await create(service)
        for number in range(length):
            await service.append_event(session, event(str(number), n=number, user__n=number))
        await service.append_event(session, event("no state"))
        await get(service)
        await service.list_sessions(app_name=APP, user_id=USER)
        before = between.round_trips
        await service.append_event(session, event("one more", n=1, user__n=1))
        assert between.round_trips - before == 1
        await service.append_event(session, event("no state"))
        assert between.round_trips - before == 2
        await get(service)
        assert between.round_trips - before == 3
        await service.list_sessions(app_name=APP, user_id=USER)
        assert between.round_trips - before == 4

    async def test_calls_cost_one_round_trip_without_prepared_statements(
        self, uri: str, between: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "CLEAN_EVERY", 1_000.0)
        options = {"max_connections": 1, "statement_cache_size": 0}
        async with create_session_service(proxy.through(uri, between.port), **options) as service:
            session = await create(service)
            await service.append_event(session, event("first"))
            await get(service)
            before = between.round_trips
            await service.append_event(session, event("second"))
            await get(service)
            assert between.round_trips - before == 2

    async def test_lost_prepared_statements_are_prepared_again(self, uri: str) -> None:
        async with create_session_service(uri) as service:
            session = await create(service)
            forget = "BEGIN DEALLOCATE ALL; RETURN NEW; END"
            server.execute(
                uri, f"CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $${forget}$$"
            )
            server.execute(
                uri,
                "CREATE TRIGGER forget BEFORE INSERT ON sessions.events"
                " FOR EACH ROW EXECUTE FUNCTION forget()",
            )
            for number in range(5):
                await service.append_event(session, event(str(number)))
            assert texts(await get(service)) == list("01234")


class TestNetworkFailures:
    async def test_lost_reply_does_not_duplicate_an_event(self, proxied: Proxied) -> None:
        between, service = proxied
        session = await create(service)
        for fault in (Fault.LOSE_REPLY, Fault.CUT_REPLY):
            between.fault = fault
            said = event(fault.name)
            with pytest.raises(StoreUnavailable):
                await service.append_event(session, said)
            between.fault = Fault.NONE
            await service.append_event(session, said)
        assert texts(session) == texts(await get(service)) == ["LOSE_REPLY", "CUT_REPLY"]

    async def test_single_lost_reply_is_retried(self, proxied: Proxied) -> None:
        between, service = proxied
        session = await create(service)
        await service.append_event(session, event("first"))
        between.inject_once(Fault.LOSE_REPLY)
        await service.append_event(session, event("second"))
        assert texts(session) == texts(await get(service)) == ["first", "second"]

    @pytest.mark.parametrize(
        ("fault", "sentence"),
        [(Fault.SILENCE, "did not answer in time"), (Fault.REFUSE, "cannot be reached")],
    )
    async def test_recovered_server_is_used(
        self, proxied: Proxied, fault: Fault, sentence: str
    ) -> None:
        between, service = proxied
        await create(service)
        between.fault = fault
        with pytest.raises(StoreUnavailable, match=sentence):
            await get(service)
        between.fault = Fault.NONE
        assert await exists(service)

    async def test_long_idle_connection_is_replaced(
        self, proxied: Proxied, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        between, service = proxied
        await create(service)
        between.forget()  # like a firewall after some minutes
        monkeypatch.setattr(connections, "IDLE_SECONDS", 0.0)
        assert await exists(service)

    async def test_server_may_close_idle_connections(self, own_server: str, uri: str) -> None:
        name = urlsplit(uri).path[1:]
        idle = f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}'"
        async with create_session_service(uri) as service:
            session = await create(service)
            server.execute(own_server, f"ALTER DATABASE {name} SET idle_session_timeout = 500")
            await service.close()
            for _ in range(2):
                await service.append_event(session, event())
                await until(lambda: not server.execute(own_server, idle))


class TestCancelledCallers:
    async def test_cancelled_append_leaves_the_connection_usable(self, uri: str) -> None:
        """It is cancelled at each of the first steps, with and without an open connection."""
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: complaints.append(context)
        )
        async with create_session_service(uri, max_connections=1) as service:
            await create(service)
            for steps in range(30):
                for connected in (False, True):
                    session = await get(service)
                    if not connected:
                        await service.close()
                    call = asyncio.ensure_future(service.append_event(session, event(str(steps))))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    call.cancel()
                    await asyncio.wait([call])
                    gc.collect()
            await service.append_event(await get(service), event("last"))
            assert texts(await get(service))[-1] == "last"
        gc.collect()
        assert complaints == []

    async def test_timed_out_call_is_cancelled_on_the_server(self, uri: str) -> None:
        async with create_session_service(uri, timeout=3) as service:
            session = await create(service)
            holder = await asyncpg.connect(server.driver_uri(uri))
            async with holder.transaction():
                await holder.execute("UPDATE sessions.sessions SET revision = revision")
                with pytest.raises(StoreUnavailable, match="did not answer in time"):
                    await service.append_event(session, event("too late"))
                waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                await until(lambda: not server.execute(uri, waiting))
            await holder.close()
            await service.append_event(session, event("in time"))
            assert texts(await get(service)) == ["in time"]


async def test_connection_does_not_keep_context_of_its_first_caller(uri: str) -> None:
    variable: ContextVar[object] = ContextVar("variable")

    class Thing:
        """The value of a context variable of the caller."""

    async def call(service: PersistentSessionService) -> ref[Thing]:
        thing = Thing()
        variable.set(thing)
        await create(service)
        return ref(thing)

    async with create_session_service(uri) as service:
        thing = await asyncio.create_task(call(service))
        await until(lambda: gc.collect() >= 0 and thing() is None)


def use_many_loops(uri: str) -> None:
    """Use a service in one loop after the other, without closing or keeping the loops."""
    service = create_session_service(uri)
    for _ in range(150):
        call = service.list_sessions(app_name=APP)
        asyncio.new_event_loop().run_until_complete(call)


async def test_unclosed_loops_do_not_exhaust_connections(uri: str) -> None:
    code = f"from {__name__} import use_many_loops; use_many_loops({uri!r})"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE
    )
    _, complaints = await process.communicate()
    assert (process.returncode, complaints) == (0, b"")
