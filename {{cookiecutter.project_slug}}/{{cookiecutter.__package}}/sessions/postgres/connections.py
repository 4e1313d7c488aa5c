"""How statements reach PostgreSQL: a few connections for each event loop, one round trip for a statement.

asyncpg has a pool, but its connections are reset after every use, which is a round trip of its own, and
forget their statements. Statements here are prepared once for each connection, under names that are
digests of their text. A proxy that hands out another server connection for every transaction, such as
PgBouncer before 1.21, knows nothing of such names; when that shows, statements are sent along with their
arguments instead: still one round trip, and some planning on top.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

logger = logging.getLogger(__name__)

PAUSES = (0.02, 0.2, 0.5)
"""Seconds to wait before each new attempt when the server has dropped us, as it does in a failover."""
IDLE_SECONDS = 300.0
"""How long a connection is kept that nobody needs."""
GOODBYE_SECONDS = 2.0
"""How long a connection may take to cancel its statement and to say goodbye."""

NOT_PREPARED = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)


def lost(error: BaseException) -> bool:
    """Whether the server, or the way to it, is not what it was when we connected."""
    if isinstance(error, TimeoutError | asyncpg.QueryCanceledError | ValueError):
        return False
    return isinstance(
        error,
        asyncpg.PostgresConnectionError
        | asyncpg.InterfaceError
        | asyncpg.InternalClientError  # the server's goodbye came while the statement was begun
        | asyncpg.OperatorInterventionError  # shutting down, starting up, idle for too long
        | asyncpg.ReadOnlySQLTransactionError  # it was the primary before a failover
        | OSError,
    )


def passing(error: BaseException) -> bool:
    """Whether the same statement has a good chance the next time."""
    return isinstance(
        error,
        asyncpg.TransactionRollbackError  # a deadlock, or an isolation level stricter than the default
        | asyncpg.InvalidCachedStatementError,  # a table was altered
    )


class Connection:
    """A connection and the statements that it has prepared."""

    def __init__(self, raw: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.raw = raw
        self.statements: dict[tuple[str, bool], PreparedStatement[asyncpg.Record]] = {}
        self.idle_since = 0.0

    async def fetch(
        self, sql: str, arguments: Sequence[Any], *, prepared: bool
    ) -> list[asyncpg.Record]:
        """Run a statement; all but its first run on this connection take one round trip."""
        statement = self.statements.get((sql, prepared))
        if statement is None:
            # Without a name, asyncpg sends the text again with every execution.
            name = sha256(sql.encode()).hexdigest()[:32] if prepared else None
            statement = await self.raw.prepare(sql, name=name)
            self.statements[sql, prepared] = statement
        return await statement.fetch(*arguments)


class Connections:
    """The connections of one event loop: opened when needed, at most so many at once.

    Args:
        settings: what `asyncpg.connect` is called with.
        most: how many there are at most; further calls wait for their turn.
        timeout: seconds that a call may take, with waiting and connecting.
        prepared: whether the server keeps statements.
    """

    def __init__(
        self, settings: Mapping[str, Any], *, most: int, timeout: float, prepared: bool
    ) -> None:
        self._settings = settings
        self.timeout = timeout
        self._prepared = prepared
        self._turns = asyncio.Semaphore(most)
        self._idle: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run a statement that may be run twice: of one that got no answer nobody knows if it was run."""
        async with asyncio.timeout(self.timeout):
            for pause in PAUSES:
                prepared = self._prepared
                try:
                    return await self._fetch(sql, arguments, prepared)
                except NOT_PREPARED:
                    if not prepared:
                        raise
                    if self._prepared:
                        logger.info("A proxy forgets prepared statements: doing without.")
                        self._prepared = False
                        self._drop_idle()
                except Exception as error:
                    if not lost(error) and not passing(error):
                        raise
                    logger.debug("Trying again: %r", error)
                await asyncio.sleep(pause)
            return await self._fetch(sql, arguments, self._prepared)

    async def _fetch(
        self, sql: str, arguments: Sequence[Any], prepared: bool
    ) -> list[asyncpg.Record]:
        async with self.connection() as connection:
            return await connection.fetch(sql, arguments, prepared=prepared)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection. One that was lost or interrupted is not used again."""
        async with self._turns:
            connection = await self._open()
            try:
                yield connection
            except (asyncio.CancelledError, TimeoutError):
                self._cancel(connection)
                raise
            except BaseException as error:
                if lost(error):
                    self._drop_idle()  # what ended this one has probably ended the others
                if lost(error) or passing(error) or isinstance(error, NOT_PREPARED):
                    connection.raw.terminate()
                else:
                    self._keep(connection)
                raise
            self._keep(connection)

    async def _open(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.raw.is_closed():
                return connection
        return Connection(await asyncpg.connect(**self._settings))

    def _keep(self, connection: Connection) -> None:
        if self._closed or connection.raw.is_closed():
            connection.raw.terminate()
            return
        now = connection.idle_since = time.monotonic()
        self._idle.append(connection)
        while self._idle[0].idle_since < now - IDLE_SECONDS:
            self._idle.pop(0).raw.terminate()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().raw.terminate()

    def _cancel(self, connection: Connection) -> None:
        """Let asyncpg tell the server to stop, so that nothing goes on waiting there for a lock."""
        if self._closed:
            connection.raw.terminate()
        else:
            self.spawn(_say_goodbye(connection))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for, except `close`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Finish what is going on in the background, and close what is not in use."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*map(_say_goodbye, idle))


async def _say_goodbye(connection: Connection) -> None:
    try:
        await connection.raw.close(timeout=GOODBYE_SECONDS)
    except Exception as error:
        logger.debug("A connection was not closed in good order: %r", error)
