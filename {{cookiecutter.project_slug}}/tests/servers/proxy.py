"""A TCP proxy between the store and its server. It counts round trips and causes failures."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto

from . import backend

ADDRESS = re.compile(r"([\w.-]+)(:|%3A)([0-9]+)(?=[/?&]|$)")
"""A host with its port in a session URI, also in the URL of an option."""


class Fault(Enum):
    """What the proxy does with connections and data."""

    NONE = auto()
    REFUSE = auto()
    """Close every connection immediately, including open ones."""
    SILENCE = auto()
    """Accept data and never pass it on."""
    LOSE_REPLY = auto()
    """Pass the request on, and close the connection instead of replying."""
    CUT_REPLY = auto()
    """Pass half of the reply on and close the connection."""


class Proxy:
    """Passes bytes between its own port and a server. `run` creates it."""

    def __init__(self, host: str, port: int) -> None:
        self.round_trips = 0
        """The number of round trips over all connections."""
        self.delay = 0.0
        """Seconds by which every reply is delayed."""
        self.flowing = asyncio.Event()
        """Replies wait while this is cleared."""
        self.flowing.set()
        self._fault = Fault.NONE
        self._once = False
        self._server = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def inject_once(self, fault: Fault) -> None:
        """Do this to one reply only. REFUSE closes the connections that are open now."""
        self.fault = fault
        if fault is Fault.REFUSE:
            self.fault = Fault.NONE
        else:
            self._once = True

    def forget(self) -> None:
        """Silence all open connections, like a firewall that drops idle ones."""
        self._forgotten |= self._writers

    def move(self, uri: str) -> None:
        """Pass new connections on to another server."""
        self._server = address(uri)

    @property
    def fault(self) -> Fault:
        """What happens from now on."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault
        self._once = False
        if fault is Fault.REFUSE:
            for writer in self._writers:
                writer.close()

    async def finish(self) -> None:
        """Wait until all connections are closed."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Start to serve a connection."""
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._fault is not Fault.REFUSE:
                await self._pass(reader, writer)
        finally:
            self._writers.discard(writer)
            self._forgotten.discard(writer)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._server)
        turn = {"client": False}

        async def up() -> None:
            while data := await reader.read(1 << 16):
                if self._fault is Fault.SILENCE:
                    self._forgotten.add(writer)  # a lost connection is never closed by the network
                if writer not in self._forgotten:
                    self.round_trips += not turn["client"]
                    turn["client"] = True
                    back.write(data)
                    await back.drain()

        async def down() -> None:
            while data := await there.read(1 << 16):
                turn["client"] = False
                await asyncio.sleep(self.delay)
                await self.flowing.wait()
                fault = self._fault
                if self._once:
                    self.fault = Fault.NONE
                if fault is Fault.LOSE_REPLY:
                    return
                if fault is Fault.CUT_REPLY:
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    return
                if fault is Fault.SILENCE:
                    self._forgotten.add(writer)
                if writer not in self._forgotten:
                    writer.write(data)
                    await writer.drain()

        ways = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            back.close()


@asynccontextmanager
async def run(host: str, port: int) -> AsyncIterator[Proxy]:
    """Run a proxy in front of a server on a free port of 127.0.0.1."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.fault = Fault.REFUSE
        await proxy.finish()


def address(uri: str) -> tuple[str, int]:
    """Return host and port of the server of a session URI."""
    found = ADDRESS.search(uri)
    assert found, "the session URI names no host with a port"
    return found[1], int(found[3])


def through(uri: str, port: int) -> str:
    """Return a session URI that leads through a proxy, for a client that gives up soon."""
    detour = ADDRESS.sub(rf"127.0.0.1\g<2>{port}", uri, count=1)
    return f"{detour}{'&' if '?' in detour else '?'}{backend.IMPATIENT}"
