"""Calls that come while others are under way share a round trip.

A call alone is sent at once. When several are under way already, those that come meanwhile wait for the first
reply and then go together, as one pipeline. That costs the driver half as much for each, and the more there
are, the larger the batches become: https://redis.io/docs/latest/develop/using-commands/pipelining/
"""

import asyncio
from typing import Any

from redis import asyncio as redis

AT_ONCE = 4
"""Calls or batches that are under way before others wait."""
LARGEST = 100
"""Calls of a batch; more would keep the first of them waiting for its reply."""


Call = tuple[asyncio.Future[Any], tuple[Any, ...]]
"""A command, and where its reply is waited for."""


class Batches:
    """The calls of one event loop that have small replies. The order in which they arrive is not kept."""

    def __init__(self, client: redis.Redis, free: asyncio.Semaphore, *, timeout: float) -> None:
        self._client = client
        self._free = free
        self._timeout = timeout
        self._under_way = 0
        self._waiting: list[Call] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def call(self, *command: Any) -> Any:
        """Return the reply to a command, or raise the error that it is.

        Who is cancelled while waiting does not know whether the command is executed. Who waits for others
        first may wait as long as two calls.
        """
        if self._under_way < AT_ONCE:
            self._under_way += 1
            try:
                async with asyncio.timeout(self._timeout), self._free:
                    return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
            finally:
                self._next()
        reply = asyncio.get_running_loop().create_future()
        self._waiting.append((reply, command))
        return await reply

    def _next(self) -> None:
        """Let those go who have waited for one call or batch to end."""
        self._under_way -= 1
        batch, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
        if batch := [(reply, command) for reply, command in batch if not reply.done()]:
            self._under_way += 1
            task = asyncio.create_task(self._send(batch))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, batch: list[Call]) -> None:
        answers: list[Any] = [asyncio.CancelledError()] * len(batch)
        try:
            answers = await self._answers([command for _, command in batch])
        except Exception as error:  # of the connection; it is everybody's
            answers = [error] * len(batch)
        finally:
            self._next()
            for (reply, _), answer in zip(batch, answers, strict=True):
                if reply.done():
                    continue
                if isinstance(answer, BaseException):
                    reply.set_exception(answer)
                else:
                    reply.set_result(answer)

    async def _answers(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        async with asyncio.timeout(self._timeout), self._free:
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers
