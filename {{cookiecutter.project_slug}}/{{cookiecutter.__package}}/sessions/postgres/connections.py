"""How statements reach PostgreSQL: a few connections for each event loop, one round trip for a statement.

asyncpg's own pool is not used, because it numbers the statements that it prepares. A proxy that changes
the server connection with every transaction, such as PgBouncer before 1.21, could then run the statement to
which another process gave the same number. Here the name of a statement is the digest of its text. Where
such a proxy shows, statements are sent along with their arguments: still one round trip, but each is
planned again.
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
"""Seconds to wait before each new attempt when the connection was lost, as in a failover."""
IDLE_SECONDS = 180.0
"""How long an idle connection is trusted: firewalls forget connections after some minutes."""
CLOSE_SECONDS = 2.0
"""How long a connection may take to cancel its statement and to close."""


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
        """Have the server cancel what is still running there, and close. Errors are only logged."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.raw.close()
        except Exception as error:
            logger.debug("A connection was not closed in good order: %r", error)


class Connections:
    """The connections of one event loop, opened when needed."""

    def __init__(self, options: PostgresOptions) -> None:
        self.options = options
        self._prepared = options.prepared
        self._turns = asyncio.Semaphore(options.max_connections)
        self._idle: list[Connection] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run a statement, again if its connection is lost: it must do no harm when it runs twice."""
        return await self.finish(self._fetch(sql, arguments))

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work that goes on if the caller is cancelled.

        To interrupt a statement, or a connection that is being opened, would cost the connection.
        """
        task = self.spawn(work)
        await asyncio.wait([task])
        return task.result()

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begin work that need not be waited for. `close` does."""
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
        """Lend a connection. One on which anything failed is not used again."""
        async with self._turns:
            connection = await self._open()
            try:
                yield connection
            except BaseException as error:
                self.spawn(connection.close())
                if lost(error):
                    self._drop_idle()  # what ended this one has probably ended the others
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
            # In a context of its own, because a connection keeps the one that it was opened in.
            return Connection(await asyncio.create_task(connecting, context=Context()))
        except (ValueError, KeyError) as error:
            if isinstance(error, OSError):  # a certificate that is refused is both
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
        """Drop the connections that have been idle for so long; the first is the oldest."""
        latest = time.monotonic() - seconds
        while self._idle and self._idle[0].idle_since <= latest:
            self._idle.pop(0).raw.terminate()

    async def close(self) -> None:
        """Finish what is going on in the background, and close what is not in use."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.close() for connection in idle))
