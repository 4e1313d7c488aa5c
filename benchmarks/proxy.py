"""A TCP proxy that makes the way to a server longer, and counts what passes. A process of its own."""

from __future__ import annotations

import asyncio
import re
import selectors
from contextlib import suppress

from .child import private_output, serve

ADDRESS = re.compile(r"([\w.-]+)(:|%3A)([0-9]+)(?=[/?&]|$)")
"""A host with its port in a session URI, also where it stands in an option's URL."""

AWAKE = 0.0002
"""Seconds before a delay ends from which on it is waited for awake: timers are late by about this much."""


class Proxy:
    """Passes bytes on to servers, each of which gets a port here."""

    def __init__(self) -> None:
        """Listen nowhere yet."""
        self.delay = 0.0
        """Seconds that each direction takes longer."""
        self.requests = 0
        """How often a client has spoken after its server did, over all connections."""
        self.bytes = 0
        """Payload of both directions together."""
        self._servers: list[asyncio.Server] = []

    async def open(self, uri: str) -> str:
        """Return the session URI by way of this proxy."""
        detours = {}
        for host, _, port in ADDRESS.findall(uri):
            detours[port] = await self._listen(host, int(port))
        return ADDRESS.sub(lambda found: f"127.0.0.1{found[2]}{detours[found[3]]}", uri)

    async def set_delay(self, seconds: float) -> None:
        """Let each direction take this much longer from now on."""
        self.delay = seconds

    async def counts(self) -> dict[str, int]:
        """Return what has passed so far."""
        return {"requests": self.requests, "bytes": self.bytes}

    async def _listen(self, host: str, port: int) -> int:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(host, port)
            spoken = {"client": False}
            with suppress(asyncio.CancelledError):  # the program ends
                await asyncio.gather(
                    self._forward(reader, back, spoken, client=True),
                    self._forward(there, writer, spoken, client=False),
                    return_exceptions=True,
                )

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        own: int = server.sockets[0].getsockname()[1]
        self._servers.append(server)
        return own

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        spoken: dict[str, bool],
        *,
        client: bool,
    ) -> None:
        """Pass on what is read, each piece after the delay: a longer way, not a narrower one."""
        clock = asyncio.get_running_loop().time
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await under_way.get()
                while (wait := due - clock()) > 0:
                    await asyncio.sleep(max(0.0, wait - AWAKE))
                if not data:
                    return
                writer.write(data)
                await writer.drain()

        delivery = asyncio.create_task(deliver())
        try:
            while data := await reader.read(1 << 16):
                self.requests += client and not spoken["client"]
                self.bytes += len(data)
                spoken["client"] = client
                under_way.put_nowait((clock() + self.delay, data))
            under_way.put_nowait((clock() + self.delay, b""))
            await delivery
        finally:
            delivery.cancel()
            writer.close()


def main() -> None:
    """Pass bytes on until standard input ends."""
    say = private_output()

    def loop() -> asyncio.AbstractEventLoop:
        # epoll rounds a wait up to whole milliseconds; select does not.
        return asyncio.SelectorEventLoop(selectors.SelectSelector())

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(serve(Proxy(), say))


if __name__ == "__main__":
    main()
