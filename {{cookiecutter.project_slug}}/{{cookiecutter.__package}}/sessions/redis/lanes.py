"""Connections that calls share.

A call is written at once, behind those that still wait for their replies on the same connection, and Redis
answers in that order (https://redis.io/docs/latest/develop/using-commands/pipelining/). So calls that come
together share round trips, and none has to borrow a connection and to return it, which takes longer than the call.
Who gives a call up that is written leaves its reply to be thrown away, and the connection to the others.
"""

import asyncio
from collections import deque
from contextlib import suppress
from contextvars import Context
from typing import Any

from hiredis import pack_command
from redis import exceptions
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry

Waiting = deque[tuple[asyncio.Future[Any], float]]
"""Calls whose replies are to come, in this order, each with the time of the loop at which it began."""

CLOSED = "the service was closed meanwhile"


class Lane:
    """One connection and the calls that wait for their replies on it, the oldest first."""

    def __init__(self, connection: AbstractConnection, *, timeout: float, idle: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._idle = idle
        self._waiting: Waiting = deque()
        self._opening = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._ended = False
        self.long = 0
        """Calls under way here whose replies may be large, so that no other should wait behind them."""

    @property
    def load(self) -> int:
        """How many replies are waited for."""
        return len(self._waiting) + self._opening.locked()

    @property
    def ready(self) -> bool:
        """Whether a call can be written at once: the connection is open, and was of use a while ago."""
        if not self._connected:
            return False
        return (
            bool(self._waiting) or asyncio.get_running_loop().time() < self._heard_at + self._idle
        )

    @property
    def _connected(self) -> bool:
        reads = self._reading is not None and not self._reading.done()
        return reads and self._connection.is_connected

    async def call(self, command: tuple[Any, ...]) -> Any:
        """Return the reply, or raise the error that it is; the lane must be ready.

        Raises:
            TimeoutError: Redis was silent for too long; the connection is closed.
            ConnectionError: of redis-py; it was lost, and nobody knows whether the command was executed.
        """
        loop = asyncio.get_running_loop()
        reply = loop.create_future()
        self._waiting.append((reply, loop.time()))
        if self._watching is None:
            self._watching = loop.call_later(self._timeout, self._watch)
        try:
            async with asyncio.timeout(self._timeout):  # of a server that does not read
                await self._connection.send_packed_command(
                    pack_command(command), check_health=False
                )
        except BaseException:
            if not reply.cancel():  # nobody waits for it any more
                reply.exception()
            raise
        return await reply

    async def open(self) -> None:
        """Connect, unless somebody else has done so meanwhile.

        Raises:
            RedisError: the lane was closed for good.
        """
        async with self._opening:
            if self._ended:
                raise exceptions.RedisError(CLOSED)
            if self.ready:
                return
            if self._connected:
                await self._wake()
            if not self._connected:
                await self._disconnect()
                await self._connection.connect()  # type: ignore[no-untyped-call]
                self._heard_at = asyncio.get_running_loop().time()
                # Its own queue, because a reply of this connection must never meet a call of another.
                waiting = self._waiting = deque()
                self._reading = asyncio.create_task(self._read(waiting), context=Context())
                # A callback, because a task that is cancelled before it begins executes nothing.
                self._reading.add_done_callback(lambda task: self._tell(waiting, task))

    async def close(self) -> None:
        """Disconnect for good. Who waits for a reply is told."""
        self._ended = True
        async with self._opening:
            await self._disconnect()

    async def _disconnect(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        await self._connection.disconnect()

    async def _wake(self) -> None:
        """See whether a connection that nobody used for long is still one; firewalls forget such."""
        try:
            async with asyncio.timeout(self._timeout / 4):
                await self.call(("PING",))
        except (exceptions.RedisError, OSError):
            await self._disconnect()

    async def _read(self, waiting: Waiting) -> None:
        """Hand out replies until the connection is lost, which raises an error."""
        loop = asyncio.get_running_loop()
        while True:
            answer: Any
            try:
                answer = await self._connection.read_response()
            except exceptions.ResponseError as refusal:
                answer = refusal
            self._heard_at = loop.time()
            if not waiting:
                raise exceptions.ConnectionError("a reply that nobody has asked for")
            reply, _ = waiting.popleft()
            if reply.done():
                continue  # whoever asked has given up
            if isinstance(answer, Exception):
                reply.set_exception(answer)
            else:
                reply.set_result(answer)

    def _tell(self, waiting: Waiting, reading: asyncio.Task[None]) -> None:
        """Tell those who wait that their connection is gone."""
        lost = None if reading.cancelled() else reading.exception()
        for reply, since in waiting:
            if reply.done():
                continue
            if reply.get_loop().time() >= since + self._timeout:
                reply.set_exception(TimeoutError("no reply in time"))
            else:
                reply.set_exception(lost or exceptions.ConnectionError("Connection closed"))
        waiting.clear()

    def _watch(self) -> None:
        """Close the connection if the oldest call has waited for too long, or look again when it will have."""
        self._watching = None
        if not self._waiting or self._reading is None:
            return
        loop = asyncio.get_running_loop()
        left = self._waiting[0][1] + self._timeout - loop.time()
        if left > 0:
            self._watching = loop.call_later(left, self._watch)
        else:
            self._reading.cancel()


class Lanes:
    """As many connections as are needed for the calls of one event loop: mostly one.

    Args:
        pool: what makes connections; it keeps none of them.
        most: how many there are at most.
        timeout: seconds that a call may take.
        idle: seconds after which a connection is tried with a PING before it is used again.
        retry: how often a command is sent again whose connection was lost, and when.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        *,
        most: int,
        timeout: float,
        idle: float,
        retry: Retry,
    ) -> None:
        self._pool = pool
        self._most = most
        self._timeout = timeout
        self._idle = idle
        self._retry = retry
        self._lanes: list[Lane] = []
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._ended = False

    async def call(self, command: tuple[Any, ...], *, brief: bool) -> Any:
        """Return the reply to a command, or raise the error that it is.

        A connection that was lost is replaced, and the command sent again. Who is cancelled while waiting does
        not know whether the command is executed.

        Args:
            command: its name and arguments.
            brief: whether it is quickly done and its reply is small.
        """
        if self._ended:
            raise exceptions.RedisError(CLOSED)
        lane = self._choose(brief)
        lane.long += not brief
        self._under_way += 1
        try:
            if lane.ready:
                try:
                    return await lane.call(command)
                except exceptions.ConnectionError:
                    pass
            async with asyncio.timeout(self._timeout):
                return await self._retry.call_with_retry(
                    lambda: self._open_and_call(lane, command), _go_on
                )
        finally:
            lane.long -= not brief
            self._under_way -= 1
            if not self._under_way:
                self._quiet.set()

    async def aclose(self) -> None:
        """Let the calls that are under way come to their end, and close all connections."""
        self._ended = True
        try:
            if self._under_way:
                self._quiet.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._quiet.wait(), self._timeout)
        finally:
            for lane in self._lanes:
                await lane.close()
            await self._pool.aclose()

    def _choose(self, brief: bool) -> Lane:
        """Return the lane where the wait is shortest: no brief call behind a long one, no long one behind any."""
        free = [lane for lane in self._lanes if not (lane.long if brief else lane.load)]
        if not free and len(self._lanes) < self._most:
            connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            lane = Lane(connection, timeout=self._timeout, idle=self._idle)
            self._lanes.append(lane)
            return lane
        return min(free or self._lanes, key=lambda lane: lane.load)

    @staticmethod
    async def _open_and_call(lane: Lane, command: tuple[Any, ...]) -> Any:
        await lane.open()
        return await lane.call(command)


async def _go_on(_: Exception) -> None:
    """Before a command is sent again."""
