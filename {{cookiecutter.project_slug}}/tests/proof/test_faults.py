"""The network and the server fail at any moment: errors are reported, and nothing is lost or duplicated."""

import asyncio
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.adk.errors.already_exists_error import AlreadyExistsError

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.environment import PROJECT
from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.session import PersistentSession

from ..servers import namespace, proxy, serve
from ..servers.proxy import Fault, Proxy
from ..sessions.programs import message
from ..sessions.support import APP, SESSION, USER, create, event, exists, get, texts, until
from ..sessions.test_server import SESSIONS, client
from .figures import Figure, repetitions

Proxied = tuple[Proxy, PersistentSessionService]
Call = Callable[[PersistentSessionService], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "create": lambda service: create(service, "another"),
    "get": get,
    "list": lambda service: service.list_sessions(app_name=APP, user_id=USER),
    "list all": lambda service: service.list_sessions(app_name=APP),
    "delete": lambda service: service.delete_session(
        app_name=APP, user_id=USER, session_id="other"
    ),
    "user state": lambda service: service.get_user_state(app_name=APP, user_id=USER),
    "check": lambda service: service.check(),
}
BAD = [fault for fault in Fault if fault is not Fault.NONE]


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, for a proxy in front of it."""
    with serve(tmp_path_factory.mktemp("faults")) as uri:
        yield uri


@pytest.fixture
async def proxied(own_server: str) -> AsyncIterator[Proxied]:
    """A proxy in front of that server, and a service that connects through it."""
    with namespace(own_server) as uri:
        async with proxy.run(*proxy.address(uri)) as between:
            detour = proxy.through(uri, between.port)
            async with create_session_service(detour) as service:
                yield between, service


@pytest.mark.parametrize("fault", BAD, ids=[fault.name for fault in BAD])
async def test_every_call_fails_with_a_sentence_and_recovers(
    proxied: Proxied, fault: Fault
) -> None:
    between, service = proxied
    session = await create(service)
    await create(service, "other")

    async def fails(call: Awaitable[Any]) -> None:
        with pytest.raises(StoreUnavailable) as caught:
            await call
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")

    between.fault = fault
    said = event("said", own=1, user__n=1, temp__t=1)
    await asyncio.gather(
        *(fails(call(service)) for call in CALLS.values()),
        fails(service.append_event(session, said)),
    )
    assert session.events == []
    assert session.state == {}
    between.fault = Fault.NONE
    for call in CALLS.values():
        try:
            await call(service)
        except AlreadyExistsError:
            assert fault in (Fault.LOSE_REPLY, Fault.CUT_REPLY)
    await service.append_event(session, said)
    await service.append_event(session, event("next"))
    assert session.state == {"own": 1, "user:n": 1, "temp:t": 1}
    assert texts(session) == texts(await get(service)) == ["said", "next"]


async def test_lease_costs_two_calls(proxied: Proxied, figure: Figure) -> None:
    between, service = proxied
    session = await create(service)
    assert isinstance(session, PersistentSession)
    for _ in range(2):  # the first may connect
        before = between.round_trips
        async with service.turn(session):
            pass
        calls = between.round_trips - before
    figure("round trips", calls)
    assert calls == 2


async def test_server_returns_503_until_the_store_is_back(
    own_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    with namespace(own_server) as uri:
        async with (
            proxy.run(*proxy.address(uri)) as between,
            client(proxy.through(uri, between.port)) as http,
        ):
            assert (await http.post(SESSIONS, json={"session_id": "s"})).status_code == 200
            between.fault = Fault.REFUSE
            for response in (
                await http.get(f"{SESSIONS}/s"),
                await http.post(SESSIONS, json={"session_id": "t"}),
                await http.post("/run", json=message("s", "hello")),
                await http.post("/run_sse", json=message("s", "hello")),
            ):
                assert response.status_code == 503
                assert response.headers["Retry-After"]
                assert response.json()["detail"].startswith("The sessions cannot be reached")
            response = await http.get("/ready")
            assert response.status_code == 503
            assert response.json() == {"ready": False, "sessions": "unavailable"}
            assert (await http.get("/health")).status_code == 200
            between.fault = Fault.NONE
            await until_ready(http)
            assert (await http.post("/run", json=message("s", "hello"))).status_code == 200
    assert not [record for record in caplog.records if record.exc_info]


async def until_ready(http: httpx.AsyncClient) -> None:
    """Return when the server says that it is ready."""
    for _ in range(600):
        if (await http.get("/ready")).status_code == 200:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("The server does not become ready again.")


async def test_retried_append_stores_one_event(proxied: Proxied, figure: Figure) -> None:
    """Most calls fail at a random moment, and the caller tries again."""
    between, service = proxied
    session = await create(service)
    counts = Counter[str]()
    dice = random.Random()
    expected: list[str] = []

    def begin() -> None:
        if dice.random() < 0.03:
            counts["silence"] += 1
            between.fault = Fault.SILENCE
            return
        fault = dice.choice([Fault.LOSE_REPLY, Fault.CUT_REPLY, Fault.REFUSE])
        counts[fault.name.lower()] += 1
        between.inject_once(fault)

    for number in range(repetitions(2_000, 60)):
        between.delay = dice.choice([0.0, 0.0, 0.002])
        injection = asyncio.get_running_loop().call_later(dice.random() / 1_000, begin)
        said = event(str(number), last=number, user__last=number)
        while True:
            call = asyncio.ensure_future(_random_call(dice, service, session, said, expected))
            if dice.random() < 0.1:
                counts["cancelled"] += 1
                await asyncio.sleep(dice.random() / 300)
                call.cancel()
            try:
                await call
                break
            except (StoreUnavailable, asyncio.CancelledError):
                between.fault = Fault.NONE
        injection.cancel()
        between.fault = Fault.NONE
    stored = await get(service)
    assert texts(session) == texts(stored) == expected
    assert stored.state == {"last": int(expected[-1]), "user:last": int(expected[-1])}
    for what, count in sorted(counts.items()):
        figure(what, count)


async def _random_call(
    dice: random.Random,
    service: PersistentSessionService,
    session: Any,
    said: Any,
    expected: list[str],
) -> None:
    """Mostly append. An event whose append has begun is retried until it succeeds."""
    text = said.content.parts[0].text
    if text in expected[-1:] or dice.random() < 0.7 or not expected:
        if text not in expected[-1:]:
            expected.append(text)
        await service.append_event(session, said)
        return
    call = dice.choice(list(CALLS.values()))
    try:
        await call(service)
    except AlreadyExistsError:
        await service.delete_session(app_name=APP, user_id=USER, session_id="another")


async def test_cancelled_calls_do_not_exhaust_connections(proxied: Proxied, figure: Figure) -> None:
    """There are more of them than connections in any pool."""
    between, service = proxied
    await create(service)
    between.delay = 0.005
    rounds = repetitions(100, 8)
    for _ in range(rounds):
        calls = [asyncio.ensure_future(get(service)) for _ in range(20)]
        await asyncio.sleep(random.random() / 50)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    between.delay = 0.0
    found = await asyncio.gather(*(get(service) for _ in range(20)))
    assert len(found) == 20
    figure("cancelled", 20 * rounds)


async def test_restarted_server_is_used_immediately(tmp_path: Path) -> None:
    """It restarts on another port, behind the same address."""
    running = ExitStack()
    uri = running.enter_context(serve(tmp_path))
    async with AsyncExitStack() as stack:
        stack.callback(running.close)
        between = await stack.enter_async_context(proxy.run(*proxy.address(uri)))
        detour = create_session_service(proxy.through(uri, between.port))
        service = await stack.enter_async_context(detour)
        session = await create(service)
        await service.append_event(session, event("before"))
        await asyncio.to_thread(running.close)
        with pytest.raises(StoreUnavailable):
            await get(service)
        between.move(await asyncio.to_thread(running.enter_context, serve(tmp_path)))
        await service.append_event(session, event("after"))
        assert texts(await get(service)) == ["before", "after"]


async def test_slow_server_is_not_given_up(proxied: Proxied) -> None:
    between, service = proxied
    session = await create(service)
    between.delay = 0.1
    await service.append_event(session, event("late"))
    assert texts(await get(service)) == ["late"]
    assert await exists(service, SESSION)


async def test_server_of_the_tests_ends_with_their_process(tmp_path: Path) -> None:
    """Even if the process is killed. Then a server can use the same data."""
    address = start_server_and_die(tmp_path)

    def is_gone() -> bool:
        with suppress(OSError), socket.create_connection(address):
            return False
        return True

    await until(is_gone)
    with serve(tmp_path) as uri:
        async with create_session_service(uri) as service:
            assert not await exists(service)


def start_server_and_die(directory: Path) -> tuple[str, int]:
    """Return the address of a server whose starter was killed."""
    program = (
        "import sys; from pathlib import Path; from tests.servers import serve\n"
        "with serve(Path(sys.argv[1])) as uri: print(uri, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(directory)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        address = proxy.address(process.stdout.readline())
        process.kill()
    return address
