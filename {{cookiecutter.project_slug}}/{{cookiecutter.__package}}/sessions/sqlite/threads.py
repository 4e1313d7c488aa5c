"""The threads of `sqlite.py`: one that writes, and a few that read.

Who waits for nobody is always served by the first reader. A pool would take turns among its threads, and
each of them has a connection with caches of its own, which costs more than the query itself.
"""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

READERS = 4


@dataclass(frozen=True, slots=True)
class Write:
    """An operation that waits for the writing thread, and where its result is waited for."""

    operation: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: asyncio.Future[Any]

    def settle(self, result: Any) -> None:
        """Hand over the result, or the exception, in the event loop of the one who waits."""
        with suppress(RuntimeError):  # that loop is closed: nobody waits any more
            self.future.get_loop().call_soon_threadsafe(self._settle, result)

    def _settle(self, result: Any) -> None:
        if self.future.done():
            return
        if isinstance(result, BaseException):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Readers:
    """Threads that are used no more than needed."""

    def __init__(self) -> None:
        self._threads = [ThreadPoolExecutor(1, f"sqlite-reader-{n}") for n in range(READERS)]
        self._given = [0] * READERS
        """What each has to do; only a hint, since who is cancelled leaves it running."""
        self._lock = threading.Lock()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run a function in the first thread that has the least to do."""
        with self._lock:
            place = self._given.index(min(self._given))
            self._given[place] += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads[place], work, *arguments)
        finally:
            with self._lock:
                self._given[place] -= 1

    def shutdown(self) -> None:
        """Finish what was begun."""
        for thread in self._threads:
            thread.shutdown()


class Threads:
    """The threads of a store with their connections, from its first use until it is closed."""

    def __init__(self) -> None:
        self.writer = ThreadPoolExecutor(1, "sqlite-writer")
        self.readers = Readers()
        self.waiting: deque[Write] = deque()
        self.own = threading.local()
        self.opened: list[sqlite3.Connection] = []

    def close(self) -> None:
        """Finish what was begun, and close the connections."""
        self.writer.shutdown()
        self.readers.shutdown()
        for connection in self.opened:
            connection.close()
