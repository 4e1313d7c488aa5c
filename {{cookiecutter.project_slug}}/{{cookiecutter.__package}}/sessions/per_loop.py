"""One client for each event loop.

Connections belong to the loop that opened them. A program may have several loops: `Runner.run` starts one in a
thread for each call, and a script may call `asyncio.run` several times with one service.

A loop owns its client: only a timer of the loop, which never fires, refers to it. So the client ends with the
loop in each case:

- `asyncio.run` closes the asynchronous generators of its loop, and with them the client.
- A loop that is closed by hand drops its timers, and with them the client.
- A loop that is neither closed nor referenced is garbage together with its client.

A forked child has its own loops and therefore its own clients.
"""

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Generic, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, ref

T = TypeVar("T")

NEVER = 1e9
"""Seconds until the timer of a client would fire."""
ABANDONED = 16
"""Idle loops that may have a client before garbage is collected."""


class PerLoop(Generic[T]):
    """Opens a client on first use from a loop, and closes it before the loop ends."""

    def __init__(self, open_: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._open = open_
        self._close = close
        self._owned: WeakKeyDictionary[asyncio.AbstractEventLoop, ReferenceType[_Owned[T]]] = (
            WeakKeyDictionary()
        )
        self._patience = ABANDONED

    def get(self) -> T:
        """Return the client of the running loop."""
        loop = asyncio.get_running_loop()
        owned = self._find(loop)
        if owned is None:
            self._collect_garbage()
            owned = _Owned(self._close)
            # A timer keeps the context in which it was started, so it gets an empty one.
            loop.call_later(NEVER, owned.stay, context=Context())
            self._owned[loop] = ref(owned)
        return owned.attach(self._open()) if owned.client is None else owned.client

    async def close(self) -> None:
        """Close the client of the running loop. Others end with their loops."""
        owned = self._find(asyncio.get_running_loop())
        if owned is not None:
            await owned.close()

    def _find(self, loop: asyncio.AbstractEventLoop) -> "_Owned[T] | None":
        reference = self._owned.get(loop)
        return None if reference is None else reference()

    def _collect_garbage(self) -> None:
        """Collect unreferenced loops, which hold connections until then."""
        if self._count_idle() >= self._patience:
            gc.collect()
            self._patience = max(ABANDONED, 2 * self._count_idle())

    def _count_idle(self) -> int:
        loops = [reference() for reference in self._owned.keyrefs()]
        return sum(loop is not None and not loop.is_running() for loop in loops)


class _Owned(Generic[T]):
    """A client that a loop owns, and a generator that closes it."""

    def __init__(self, close: Callable[[T], Awaitable[None]]) -> None:
        self._close = close
        self._guard: AsyncGenerator[None, None] | None = None
        self.client: T | None = None

    def stay(self) -> None:
        """Do nothing. The timer refers to this method, and so to the object."""

    def attach(self, client: T) -> T:
        """Own a client until `close`, or until the loop closes its asynchronous generators."""
        self.client = client
        self._guard = self._wait()
        hooks = sys.get_asyncgen_hooks()
        # No finalizer, because that of a loop starts a task, which warns if the loop is garbage too.
        sys.set_asyncgen_hooks(finalizer=None)
        try:
            with suppress(StopIteration):
                self._guard.__anext__().send(None)
        finally:
            sys.set_asyncgen_hooks(*hooks)
        return client

    async def close(self) -> None:
        """Close the client."""
        if self._guard is not None:
            await self._guard.aclose()

    async def _wait(self) -> AsyncGenerator[None, None]:
        loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            client, self.client = self.client, None
            if client is not None and _running_loop() is loop:
                await self._close(client)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
