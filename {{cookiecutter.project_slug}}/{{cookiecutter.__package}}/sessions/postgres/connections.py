"""Connections to PostgreSQL: a few for each event loop, one round trip for a statement.

asyncpg's own pool is not used, because it numbers its prepared statements. With a proxy that changes the server
connection for every transaction, such as PgBouncer before 1.21, another process may have given the same number
to another statement. Here the name of a statement is the digest of its text. If there is such a proxy,
statements are sent with their arguments: still one round trip, but each call is planned again.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from hashlib import sha256
from typing import Any, TypeVar

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from ..errors import ConfigurationError
from .errors import STATEMENT_UNKNOWN, first_line, lost, worth_another_try
from .options import PostgresOptions

T = TypeVar("T")

logger = logging.getLogger(__name__)

PAUSES = (0.02, 0.2, 0.5)
"""Seconds before each new attempt after a lost connection, such as in a failover."""
IDLE_SECONDS = 180.0
"""Seconds of idleness after which a connection is replaced, because a firewall may have dropped it."""
CLOSE_SECONDS = 2.0
"""Seconds that a connection may take to cancel its statement and close."""


class Connection:
    """A connection and the statements that it has prepared."""

    def __init__(self, raw: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.raw = raw
        self.idle_since = 0.0
        self._statements: dict[tuple[str, bool], PreparedStatement[asyncpg.Record]] = {}

    async def fetch(
        self, sql: str, arguments: Sequence[Any], *, prepared: bool
    ) -> list[asyncpg.Record]:
        """Run a statement. All but its first run on this connection take one round trip."""
        statement = self._statements.get((sql, prepared))
        if statement is None:
            # Without a name, asyncpg sends the text again with every execution.
            name = sha256(sql.encode()).hexdigest()[:32] if prepared else ""
            statement = await self.raw.prepare(sql, name=name)
            self._statements[sql, prepared] = statement
        return await statement.fetch(*arguments)

    async def close(self) -> None:
        """Cancel the running statement on the server, and close. Errors are only logged."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.raw.close()
        except Exception as error:
            logger.debug("A connection was not closed in good order: %r", error)


class Connections:
    """The connections of one event loop. They are opened on demand."""

    def __init__(self, options: PostgresOptions) -> None:
        self.options = options
        self._prepared = options.prepared
        self._turns = asyncio.Semaphore(options.max_connections)
        self._idle: list[Connection] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run a statement, and repeat it after a lost connection. It must be safe to repeat."""
        return await self.finish(self._fetch(sql, arguments))

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work that continues if the caller is cancelled.

        An interruption would cost the connection.
        """
        task = self.spawn(work)
        await asyncio.wait([task])
        return task.result()

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start work in the background. `close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.debug("Work on PostgreSQL failed: %r", error)

    async def _fetch(self, sql: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        async with asyncio.timeout(self.options.timeout):
            for pause in PAUSES:
                try:
                    return await self._fetch_once(sql, arguments)
                except Exception as error:
                    if not worth_another_try(error):
                        raise
                    logger.debug("Trying again: %r", error)
                await asyncio.sleep(pause)
            return await self._fetch_once(sql, arguments)

    async def _fetch_once(self, sql: str, arguments: Sequence[Any]) -> list[asyncpg.Record]:
        async with self.connection() as connection:
            if self._prepared:
                try:
                    return await connection.fetch(sql, arguments, prepared=True)
                except STATEMENT_UNKNOWN:
                    logger.info("A proxy forgets prepared statements: doing without.")
                    self._prepared = False
            return await connection.fetch(sql, arguments, prepared=False)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection. After a failure it is not used again."""
        async with self._turns:
            connection = await self._open()
            try:
                yield connection
            except BaseException as error:
                self.spawn(connection.close())
                if lost(error):
                    self._drop_idle()  # the others are probably lost as well
                raise
            self._keep(connection)

    async def _open(self) -> Connection:
        self._drop_idle(IDLE_SECONDS)
        while self._idle:
            connection = self._idle.pop()
            if not connection.raw.is_closed():
                return connection
        connecting = asyncpg.connect(**self.options.connect)
        try:
            # A connection keeps the context in which it was opened, so it gets an empty one.
            return Connection(await asyncio.create_task(connecting, context=Context()))
        except (ValueError, KeyError) as error:
            if isinstance(error, OSError):  # the error of a refused certificate is both
                raise
            text = first_line(error)
            raise ConfigurationError(f"The session URI cannot be used: {text}.") from error

    def _keep(self, connection: Connection) -> None:
        if self._closed:
            connection.raw.terminate()
        else:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)

    def _drop_idle(self, seconds: float = 0.0) -> None:
        """Drop connections that have been idle for this long. The first is the oldest."""
        latest = time.monotonic() - seconds
        while self._idle and self._idle[0].idle_since <= latest:
            self._idle.pop(0).raw.terminate()

    async def close(self) -> None:
        """Wait for background work, and close all idle connections."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.close() for connection in idle))
