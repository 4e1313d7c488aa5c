"""One SQLite file, used from one writing thread and a few reading threads.

A commit waits for the disk. Writes that arrive meanwhile are committed together afterwards, so concurrent
writes share the wait. If one of them fails, each is committed alone, and only that one fails.

Without contention, the first reader serves every call. A pool would alternate between its threads, whose
connections have separate caches, which costs more than the query itself.
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
"""Maximum number of writes in a commit."""


@dataclass(frozen=True, slots=True)
class Write:
    """An operation that waits for the writing thread, and the future of its result."""

    operation: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: asyncio.Future[Any]

    def settle(self, result: Any) -> None:
        """Set the result or the exception in the event loop of the caller."""
        with suppress(RuntimeError):  # the loop is closed
            self.future.get_loop().call_soon_threadsafe(self._settle, result)

    def _settle(self, result: Any) -> None:
        if self.future.done():
            return
        if isinstance(result, BaseException):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Readers:
    """The reading threads. As few as possible are used."""

    def __init__(self) -> None:
        self._threads = [ThreadPoolExecutor(1, f"sqlite-reader-{n}") for n in range(READERS)]
        self._given = [0] * READERS
        """The number of calls of each thread. An estimate, because work of cancelled calls continues."""
        self._lock = threading.Lock()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run a function in the first thread with the fewest calls."""
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
        """Wait for the work that has begun."""
        for thread in self._threads:
            thread.shutdown()


class Threads:
    """The threads of a database and their connections, from first use to close."""

    def __init__(self) -> None:
        self.writer = ThreadPoolExecutor(1, "sqlite-writer")
        self.readers = Readers()
        self.waiting: deque[Write] = deque()
        self.own = threading.local()
        self.opened: list[sqlite3.Connection] = []
        self.process = os.getpid()
        self.file: tuple[int, int] | None = None
        """Device and inode of the open file."""
        self.ready = threading.Lock()

    def close(self) -> None:
        """Wait for the work that has begun, and close the connections."""
        self.writer.shutdown()
        self.readers.shutdown()
        for connection in self.opened:
            connection.close()


_inherited: list[Threads] = []
"""Threads of the parent of a forked process. The child must not even close their connections:
https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_"""


class Database:
    """A SQLite file. Operations are functions of a connection and run in the threads.

    Args:
        path: the file. The first operation creates it with its tables.
        synchronous: `FULL` or `NORMAL`, as https://www.sqlite.org/pragma.html#pragma_synchronous
        busy_timeout: seconds to wait for the write of another process.
    """

    def __init__(self, path: Path, *, synchronous: str, busy_timeout: float) -> None:
        self.path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._current = Threads()
        self._closing: list[threading.Thread] = []
        """Close the connections to files that were deleted or replaced."""

    async def read(self, operation: Callable[..., T], *arguments: Any) -> T:
        """Run a read operation."""
        threads = self._threads()
        return await threads.readers.run(self._query, threads, operation, arguments)

    async def write(self, operation: Callable[..., T], *arguments: Any) -> T:
        """Run a write operation in a transaction, possibly together with others.

        The operation must not have written anything before it raises an exception of `store.py`.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        threads = self._threads()
        threads.waiting.append(Write(operation, arguments, future))
        threads.writer.submit(self._write_all, threads)
        return await future

    async def truncate_log(self) -> None:
        """Move all changes from the write-ahead log to the file, and empty the log."""
        threads = self._threads()
        await asyncio.get_running_loop().run_in_executor(threads.writer, self._truncate, threads)

    async def close(self) -> None:
        """Close the file. The next operation opens it again, in new threads."""
        threads, self._current = self._threads(), Threads()
        closing, self._closing = self._closing, []

        def close() -> None:
            threads.close()
            for each in closing:
                each.join()

        await asyncio.get_running_loop().run_in_executor(None, close)

    def _threads(self) -> Threads:
        """Return the threads of this process. A forked child creates its own."""
        if self._current.process != os.getpid():
            _inherited.append(self._current)
            self._current = Threads()
        return self._current

    def _write_all(self, threads: Threads) -> None:
        """Commit all waiting writes. A later call finds none left."""
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
            # One of them failed, and the others with it. Commit each alone.
            results = [self._commit_alone(threads, write) for write in writes]
        for write, result in zip(writes, results, strict=True):
            write.settle(result)

    def _commit_alone(self, threads: Threads, write: Write) -> Any:
        try:
            return self._commit(threads, [write])[0]
        except BaseException as error:
            return error

    def _commit(self, threads: Threads, writes: Sequence[Write]) -> Sequence[Any]:
        """Run operations in one transaction. An exception of `store.py` is a result."""
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

    def _truncate(self, threads: Threads) -> None:
        with self._translated():
            db = self._connection(threads)
            [busy, *_] = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise StoreUnavailable(
                    f"SQLite file {self.path}: what was erased is still in {self.path.name}-wal, because"
                    " another process is reading; erase it again."
                )

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
                db.execute("PRAGMA secure_delete = ON")  # zeros instead of what was deleted
                db.execute(f"PRAGMA synchronous = {self._synchronous}")
            except BaseException:
                db.close()
                raise
            return db

    def _check_file(self, threads: Threads) -> None:
        """Raise an error if the file was deleted or replaced, because writes to it would be lost."""
        if self._file() == threads.file:
            return
        if self._current is threads:
            self._current = Threads()  # the next operation opens the new file
            # This thread is one of those that end, so another one waits for them.
            self._closing.append(threading.Thread(target=threads.close))
            self._closing[-1].start()
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
        """Convert errors of SQLite and of the file system to errors of this package."""
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
