"""One SQLite file, used from threads: one that writes, and a few that read.

A commit waits for the disk. Operations that are to be written meanwhile wait, and are then committed
together, so that many sessions that are written at once share the wait. If one of them fails, each of
them is committed on its own, and only that one fails.

Without contention, the first reader serves every call. A pool would take turns among its threads, and
each of them has a connection with caches of its own, which costs more than the query itself.
"""

import asyncio
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import StoreUnavailable
from ..store import AlreadyExists, NotFound, Stale
from .schema import create_file, prepare, refuse_foreign_file

T = TypeVar("T")

READERS = 4
MOST_AT_ONCE = 64
"""Writes that are committed together at most."""


@dataclass(frozen=True, slots=True)
class Write:
    """An operation that waits for the writing thread, and the future of its result."""

    operation: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: asyncio.Future[Any]

    def settle(self, result: Any) -> None:
        """Hand over the result, or the exception, in the event loop of the caller."""
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
        """How much each has to do. A hint, because the work of a cancelled caller goes on."""
        self._lock = threading.Lock()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run a function in the first thread that has the least to do."""
        with self._lock:
            index = self._given.index(min(self._given))
            self._given[index] += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads[index], work, *arguments)
        finally:
            with self._lock:
                self._given[index] -= 1

    def shutdown(self) -> None:
        """Finish the work that was begun."""
        for thread in self._threads:
            thread.shutdown()


class Threads:
    """The threads of a database with their connections, from its first use until it is closed."""

    def __init__(self) -> None:
        self.writer = ThreadPoolExecutor(1, "sqlite-writer")
        self.readers = Readers()
        self.waiting: deque[Write] = deque()
        self.own = threading.local()
        self.opened: list[sqlite3.Connection] = []
        self.process = os.getpid()
        self.file: tuple[int, int] | None = None
        """Device and inode of the file that was opened."""
        self.ready = threading.Lock()

    def close(self) -> None:
        """Finish the work that was begun, and close the connections."""
        self.writer.shutdown()
        self.readers.shutdown()
        for connection in self.opened:
            connection.close()


_inherited: list[Threads] = []
"""Threads of the process that this one was forked from. A child must not even close their connections:
https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_"""


class Database:
    """A SQLite file. Operations are functions of a connection and run in its threads.

    Args:
        path: the file, which is created with its tables by the first operation.
        synchronous: `FULL` or `NORMAL`, as https://www.sqlite.org/pragma.html#pragma_synchronous
        busy_timeout: seconds to wait for the write of another process.
    """

    def __init__(self, path: Path, *, synchronous: str, busy_timeout: float) -> None:
        self.path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._current = Threads()

    async def read(self, operation: Callable[..., T], *arguments: Any) -> T:
        """Run an operation that only reads."""
        threads = self._threads()
        return await threads.readers.run(self._query, threads, operation, arguments)

    async def write(self, operation: Callable[..., T], *arguments: Any) -> T:
        """Run an operation in a transaction, possibly with others.

        Before it raises what the seam names, it must not have written anything.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        threads = self._threads()
        threads.waiting.append(Write(operation, arguments, future))
        threads.writer.submit(self._write_all, threads)
        return await future

    async def close(self) -> None:
        """Close the file. The next operation opens it again, in new threads."""
        threads, self._current = self._threads(), Threads()
        await asyncio.get_running_loop().run_in_executor(None, threads.close)

    def _threads(self) -> Threads:
        """Return the threads of this process: a forked child has none of its parent's."""
        if self._current.process != os.getpid():
            _inherited.append(self._current)
            self._current = Threads()
        return self._current

    def _write_all(self, threads: Threads) -> None:
        """Commit all that waits. A later call finds nothing left to do."""
        writes: list[Write] = []
        with suppress(IndexError):
            while len(writes) < MOST_AT_ONCE:
                writes.append(threads.waiting.popleft())
        if not writes:
            return
        try:
            results: Sequence[Any] = self._commit(threads, writes)
        except StoreUnavailable as error:
            results = [error] * len(writes)
        except BaseException:
            # One of them failed and took the others along. Now each on its own:
            results = [self._commit_alone(threads, write) for write in writes]
        for write, result in zip(writes, results, strict=True):
            write.settle(result)

    def _commit_alone(self, threads: Threads, write: Write) -> Any:
        try:
            return self._commit(threads, [write])[0]
        except BaseException as error:
            return error

    def _commit(self, threads: Threads, writes: Sequence[Write]) -> Sequence[Any]:
        """Run operations in one transaction. A refusal that the seam names is a result."""
        with self._translated():
            db = self._connection(threads)
            db.execute("BEGIN IMMEDIATE")
            try:
                results = []
                for write in writes:
                    try:
                        results.append(write.operation(db, *write.arguments))
                    except (AlreadyExists, NotFound, Stale) as refusal:
                        results.append(refusal)
                self._check_file(threads)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return results

    def _query(
        self, threads: Threads, operation: Callable[..., T], arguments: tuple[Any, ...]
    ) -> T:
        with self._translated():
            db = self._connection(threads)
            self._check_file(threads)
            try:
                return operation(db, *arguments)
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _connection(self, threads: Threads) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(threads.own, "db", None)
        if db is None:
            db = threads.own.db = self._connect(threads)
            threads.opened.append(db)
        return db

    def _connect(self, threads: Threads) -> sqlite3.Connection:
        with threads.ready:
            if threads.file is None:
                create_file(self.path)
                refuse_foreign_file(self.path)
            db = sqlite3.connect(
                self.path,
                timeout=self._busy_timeout,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                if threads.file is None:
                    prepare(db, self._busy_timeout)
                    threads.file = self._file()
                db.execute("PRAGMA foreign_keys = ON")
                db.execute(f"PRAGMA synchronous = {self._synchronous}")
            except BaseException:
                db.close()
                raise
            return db

    def _check_file(self, threads: Threads) -> None:
        """Notice that the file was deleted or replaced: a write into it would be lost."""
        if self._file() == threads.file:
            return
        if self._current is threads:
            self._current = Threads()  # the next operation opens what is there then
        raise StoreUnavailable(
            f"SQLite file {self.path} was deleted or replaced while it was in use: sessions in it are"
            " gone unless you put it back; new ones go into a new file."
        )

    def _file(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say in a sentence what SQLite and the file system say in codes."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"SQLite file {self.path}: {self._hint(error)}.") from error
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise ValueError(f"SQLite refuses the values: {error}.") from error
            raise StoreUnavailable(
                f"SQLite file {self.path} is damaged ({error}); restore it from a backup."
            ) from error
        except OSError as error:
            if isinstance(error, StoreUnavailable):
                raise
            raise StoreUnavailable(
                f"SQLite file {self.path} cannot be used: {error.strerror or error}."
            ) from error

    def _hint(self, error: sqlite3.OperationalError) -> str:
        text = str(error)
        if "locked" in text or "busy" in text:
            return (
                f"another process has been writing for more than {self._busy_timeout:g} seconds;"
                " raise busy_timeout or look for a process that hangs"
            )
        if "full" in text:
            return "the disk is full; make room"
        if "readonly" in text or "unable to open" in text:
            return "it cannot be written; check the permissions of the file and of its folder"
        return text
