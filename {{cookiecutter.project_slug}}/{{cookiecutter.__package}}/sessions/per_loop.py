"""One client for each event loop.

Connections belong to the loop that opened them. A program may have several: `Runner.run` starts one in
a thread for each call, and a script calls `asyncio.run` more than once with the same service.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Opens a client on the first use from a loop, and closes it at the latest before the loop is."""

    def __init__(self, open_: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._open = open_
        self._close = close
        self._clients: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[None, None]]] = {}
        self._lock = Lock()

    def get(self) -> T:
        """Return the client of the running loop."""
        loop = asyncio.get_running_loop()
        if (known := self._clients.get(loop)) is not None:
            return known[0]
        with self._lock:
            self._forget_closed_loops()
            client = self._open()
            self._clients[loop] = (client, _guard(client, self._close))
        return client

    async def close(self) -> None:
        """Close the client of the running loop; those of other loops end with their loops."""
        with self._lock:
            self._forget_closed_loops()
            known = self._clients.pop(asyncio.get_running_loop(), None)
        if known is not None:
            await known[1].aclose()

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._clients if loop.is_closed()]:
            del self._clients[loop]


def _guard(client: T, close: Callable[[T], Awaitable[None]]) -> AsyncGenerator[None, None]:
    """Return what closes the client when it is closed itself.

    `asyncio.run` closes the asynchronous generators that were begun in its loop before it closes the
    loop, and an event loop closes those that nobody refers to any more.
    """

    async def wait() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await close(client)

    guard = wait()
    with suppress(StopIteration):
        guard.__anext__().send(None)
    return guard
