"""One client per event loop. It ends with its loop, and a forked process has its own."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.per_loop import ABANDONED, PerLoop

from ..sessions.support import create, event, get, texts, until


class Client:
    """A connection that opens on first use."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None

    async def use(self) -> None:
        """Send a line and read it back."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(b"hello\n")
        assert await self._reader.readline() == b"hello\n"

    async def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()


class Echo:
    """An echo server in a thread with its own event loop."""

    def __init__(self) -> None:
        self.connections = 0
        """The number of open connections."""
        self.opened = 0
        """The number of connections so far."""
        self.port = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def start(self) -> None:
        """Start and wait until it listens."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Stop and wait for the end."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.opened += 1
        while line := await reader.readline():
            writer.write(line)
        self.connections -= 1
        writer.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A running echo server."""
    echo = Echo()
    echo.start()
    yield echo
    echo.stop()


def clients_of(port: int) -> PerLoop[Client]:
    """Return clients of the echo server."""
    return PerLoop(lambda: Client(port), Client.close)


async def use(clients: PerLoop[Client]) -> None:
    """Use the client of the running loop."""
    await clients.get().use()


async def test_loop_keeps_its_client(echo: Echo) -> None:
    clients = clients_of(echo.port)
    await use(clients)
    gc.collect()
    await use(clients)
    assert echo.opened == 1
    await clients.close()


async def test_client_reopens_after_close(echo: Echo) -> None:
    clients = clients_of(echo.port)
    for opened in (1, 2):
        await use(clients)
        assert echo.opened == opened
        await clients.close()
        await until(lambda: echo.connections == 0)


async def test_close_leaves_clients_of_other_loops_open(echo: Echo) -> None:
    clients = clients_of(echo.port)
    await use(clients)

    async def use_and_close() -> None:
        await use(clients)
        await clients.close()

    await asyncio.to_thread(asyncio.run, use_and_close())
    await until(lambda: echo.connections == 1)
    await use(clients)
    assert echo.opened == 2
    await clients.close()


async def test_asyncio_run_closes_client(echo: Echo) -> None:
    clients = clients_of(echo.port)
    for _ in range(3):
        await asyncio.to_thread(asyncio.run, use(clients))
        await until(lambda: echo.connections == 0)
    assert echo.opened == 3


async def test_alternating_loops_keep_their_clients(echo: Echo) -> None:
    clients = clients_of(echo.port)

    def use_two() -> None:
        with asyncio.Runner() as first, asyncio.Runner() as second:
            for _ in range(5):
                first.run(use(clients))
                second.run(use(clients))

    await asyncio.to_thread(use_two)
    assert echo.opened == 2


def drop_loops(port: int) -> None:
    """Use a client in one loop after the other, without closing or keeping the loops."""
    clients = clients_of(port)
    for _ in range(4 * ABANDONED):
        asyncio.new_event_loop().run_until_complete(use(clients))
    print("ready", flush=True)
    sys.stdin.read()


def close_loops_by_hand(port: int) -> None:
    """Use a client in one loop after the other, and close the loops without their generators."""
    clients = clients_of(port)
    for _ in range(4 * ABANDONED):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(use(clients))
        loop.close()
    gc.collect()
    print("ready", flush=True)
    sys.stdin.read()


def run(function: str, argument: object) -> "subprocess.Popen[str]":
    """Start a process that calls this function of this module."""
    call = f"from {__name__} import {function}; {function}({argument!r})"
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", call]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize(
    ("function", "most"), [("drop_loops", ABANDONED), ("close_loops_by_hand", 0)]
)
async def test_abandoned_loops_release_connections_without_warnings(
    echo: Echo, function: str, most: int
) -> None:
    process = run(function, echo.port)
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
    await until(lambda: echo.connections <= most)
    assert echo.opened == 4 * ABANDONED
    _, complaints = await asyncio.to_thread(process.communicate)
    assert complaints == ""


def use_before_and_after_fork(uri: str) -> None:
    """Append to a session, fork, append in the child, then in the parent."""
    service = create_session_service(uri)
    loop = asyncio.new_event_loop()

    async def append(text: str) -> None:
        session = await get(service)
        await service.append_event(session, event(text))

    loop.run_until_complete(create(service))
    loop.run_until_complete(append("parent"))
    if (child := os.fork()) == 0:
        try:
            asyncio.run(append("child"))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    loop.run_until_complete(append("parent again"))
    print(texts(loop.run_until_complete(get(service))))
    loop.run_until_complete(service.close())
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here")
async def test_service_works_in_both_processes_after_a_fork(uri: str) -> None:
    process = run("use_before_and_after_fork", uri)
    try:
        said, complaints = await asyncio.to_thread(process.communicate, timeout=120)
    finally:
        process.kill()
    assert said == "['parent', 'child', 'parent again']\n", complaints
