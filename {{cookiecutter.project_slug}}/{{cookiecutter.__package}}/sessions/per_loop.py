"""One client for each event loop.

Connections belong to the loop that opened them. A program may have several: `Runner.run` starts one in
a thread for each call, and a script calls `asyncio.run` more than once with the same service.
"""

import asyncio
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Opens a client on the first use from a loop, and forgets it when the loop is closed."""

    def __init__(self, open_: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._open = open_
        self._close = close
        self._clients: dict[asyncio.AbstractEventLoop, T] = {}
        self._lock = Lock()

    def get(self) -> T:
        """Return the client of the running loop."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            with self._lock:
                self._forget_closed_loops()
                client = self._clients[loop] = self._open()
        return client

    async def close(self) -> None:
        """Close the client of the running loop; those of other loops end with their loops."""
        with self._lock:
            self._forget_closed_loops()
            client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await self._close(client)

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._clients if loop.is_closed()]:
            del self._clients[loop]
