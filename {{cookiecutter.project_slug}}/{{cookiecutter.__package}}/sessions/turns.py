"""One turn at a time for each session, in order of arrival.

In a process, the turns of a session wait in a queue. The first in the queue also holds a lease in the store, so
that other processes wait. The lease has the ids of the session under a reserved app name. It is released at the
end of the turn. If a process is killed, its lease expires. A long turn extends its lease.

Processes that wait for a lease try again at random intervals, and the first to try gets it. The lease only
avoids refusals. A process that was paused for longer than its lease takes it again before its next append, unless
another turn has begun. If one has ended meanwhile, the append is refused like that of any stale writer.
"""

import asyncio
import logging
import os
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from threading import Lock
from typing import Any, Literal

from google.adk.platform import time as platform_time

from .errors import SessionStoreError, TurnTimeout
from .store import SessionKey, SessionStore
from .telemetry import turn_waits

logger = logging.getLogger(__name__)

LEASES = "\x1fturns\x1f"
"""The prefix of the app names of leases. The service refuses sessions with such names."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts to get the lease of another process."""

Mode = Literal["on", "process", "off"]


class Turn:
    """A turn on a session. Until it ends, no other turn on the session begins."""

    def __init__(
        self, queue: "TurnQueue", key: SessionKey, task: "asyncio.Task[Any] | None"
    ) -> None:
        self.queue = queue
        self.key = key
        self.loop = asyncio.get_running_loop()
        self.task = task
        """The task that began the turn, unless the turn is that of a block, which ends it."""
        self.admitted: asyncio.Future[None] = self.loop.create_future()
        """Done once the turn is at the head of the queue."""
        self.ended = False
        self.empty = True
        """Whether nothing has been appended in this turn."""
        self.holder = secrets.token_hex(8)
        """Distinguishes this turn from others that want the lease."""
        self.leased = False
        """Whether the turn has taken a lease in the store."""
        self.valid_until = float("inf")
        """The end of the lease on the monotonic clock."""
        self.renewal: asyncio.TimerHandle | None = None
        self.watched = False
        """Whether the task that runs the root agent is known."""

    @property
    def lost(self) -> bool:
        """Whether the lease has expired, so that another process may have begun its turn. See `TurnQueue.keep`."""
        return time.monotonic() >= self.valid_until

    def __deepcopy__(self, memo: object) -> "Turn":
        """Return the same turn: copies of a session share it."""
        return self

    def task_done(self, task: "asyncio.Task[Any]") -> None:
        """End the turn if the task was cancelled. One that is done may have driven only a part of the run."""
        if task.cancelled():
            self.queue.abandon(self)


def watch_agent() -> None:
    """End the current turn if the running task, which runs the root agent, is cancelled.

    If a run is cancelled, the Runner cancels that task and calls no plugin. The tasks of agents below the root
    are not watched: a parallel agent cancels them, and goes on.
    """
    turn, task = _current.get(), asyncio.current_task()
    if turn and turn.task and task and not turn.watched:
        turn.watched = True
        if task is not turn.task:
            task.add_done_callback(turn.task_done)


_current: ContextVar[Turn | None] = ContextVar("turn", default=None)
"""The turn of the running code."""


class TurnQueue:
    """Queues turns, one at a time for each session.

    Args:
        store: the store of leases.
        mode: `on` for all processes that share the store, `process` for this one only, or `off`.
        lease: seconds after which the turn of a killed process ends.
        wait: seconds that a turn waits for earlier ones.
    """

    def __init__(
        self, store: SessionStore, *, mode: Mode = "on", lease: int = 15, wait: float = 60.0
    ) -> None:
        self.store = store
        self.mode = mode
        self.lease = lease
        self.wait = wait
        self._queues: dict[SessionKey, deque[Turn]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = Lock()
        self._process = os.getpid()

    async def begin(self, key: SessionKey, *, block: bool = False) -> tuple[Turn | None, bool]:
        """Wait for earlier turns, and return the turn and whether it had to wait.

        The turn is None if turns are off, or if the code already runs within a turn on this session, such as a
        tool that calls the agent. The turn of a `block` ends only when it is told to.

        Raises:
            TurnTimeout: earlier turns took longer than `wait`.
        """
        if self.mode == "off":
            return None, False
        if self._process != os.getpid():  # a forked child has no turns
            self._queues, self._lock, self._process = {}, Lock(), os.getpid()
        outer = _current.get()
        if outer and outer.queue is self and outer.key == key and not outer.ended:
            if outer.task is not asyncio.current_task():
                return None, False
            await self.end(outer)  # its run was cancelled, and its task begins the next turn
        started = time.monotonic()
        turn = Turn(self, key, None if block else asyncio.current_task())
        deadline = started + self.wait
        waited = await self._queue_up(turn, deadline)
        try:
            if self.mode == "on":
                waited = await self._take_lease(turn, deadline, waited=waited) or waited
        except BaseException:
            self._leave(turn)
            raise
        turn_waits.record(time.monotonic() - started)
        if turn.task:
            turn.task.add_done_callback(turn.task_done)
        _current.set(turn)
        return turn, waited

    async def keep(self, turn: Turn) -> bool:
        """Return whether the turn still has its lease. One that has expired is taken again if it is free.

        A busy machine may renew a lease too late. If another turn was there in between, the revision of the
        session shows it.
        """
        if turn.lost:
            await self._extend(turn)
        return not turn.lost

    async def end(self, turn: Turn) -> None:
        """End a turn, unless it has ended, and let the next one begin."""
        if turn.ended:
            return
        turn.ended = True
        if turn.task:  # it may last longer than many turns
            turn.task.remove_done_callback(turn.task_done)
        if turn.renewal:
            turn.renewal.cancel()
        try:
            if turn.leased and not turn.lost:
                await self.store.release(_lease_of(turn.key), holder=turn.holder)
        except SessionStoreError as error:
            logger.warning("A turn could not be ended, and expires in %s s: %s", self.lease, error)
        finally:
            self._leave(turn)

    def abandon(self, turn: Turn) -> None:
        """End a turn that was cancelled or is garbage soon. Any thread may call this."""
        if turn.ended:
            return
        try:
            turn.loop.call_soon_threadsafe(self._end_soon, turn)
        except RuntimeError:  # the loop is closed, so the lease expires
            turn.ended = True
            self._leave(turn)

    async def close(self) -> None:
        """End the turns of the running event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            turns = [queue[0] for queue in self._queues.values() if queue[0].loop is loop]
        await asyncio.gather(*(self.end(turn) for turn in turns))
        own = [task for task in self._tasks.copy() if task.get_loop() is loop]
        await asyncio.gather(*own, return_exceptions=True)

    async def _queue_up(self, turn: Turn, deadline: float) -> bool:
        """Wait until the turn is at the head of the queue. Return whether others were before it."""
        with self._lock:
            queue = self._queues.setdefault(turn.key, deque())
            queue.append(turn)
            if queue[0] is turn:
                return False
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await turn.admitted
        except TimeoutError:
            self._leave(turn)
            raise self._timeout(turn.key) from None
        except BaseException:
            self._leave(turn)
            raise
        return True

    def _leave(self, turn: Turn) -> None:
        """Remove a turn from its queue. If it was at the head, admit the next one."""
        with self._lock:
            queue = self._queues.get(turn.key)
            if not queue or turn not in queue:
                return
            queue.remove(turn)
            while queue and not _admit(queue[0]):
                queue.popleft()  # its event loop was closed
            if not queue:
                del self._queues[turn.key]

    async def _take_lease(self, turn: Turn, deadline: float, *, waited: bool) -> bool:
        """Take the lease, and wait for that of another process. Return whether there was one."""
        pause, found = FIRST_PAUSE, False
        if waited:  # another process may be waiting as well
            await asyncio.sleep(random.uniform(0, 2 * FIRST_PAUSE))  # noqa: S311
        while True:
            started = time.monotonic()
            attempt = asyncio.ensure_future(self._lease(turn))
            try:
                turn.leased = await asyncio.shield(attempt)
            except asyncio.CancelledError:
                attempt.add_done_callback(lambda done: self._give_back(turn, done))
                raise
            if turn.leased:
                turn.valid_until = started + self.lease
                self._renew_later(turn)
                return found
            found = True
            if time.monotonic() + pause > deadline:
                raise self._timeout(turn.key)
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _lease(self, turn: Turn) -> bool:
        return await self.store.lease(
            _lease_of(turn.key),
            holder=turn.holder,
            now=platform_time.get_time(),
            ttl=self.lease,
        )

    def _give_back(self, turn: Turn, attempt: asyncio.Future[bool]) -> None:
        """Release the lease of a turn that was cancelled while it was taken."""
        if not attempt.cancelled() and attempt.exception() is None and attempt.result():
            turn.leased = True
            self._end_soon(turn)

    def _end_soon(self, turn: Turn) -> None:
        self._run_soon(turn, self.end)

    def _run_soon(self, turn: Turn, work: Callable[[Turn], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine for a turn in a task that `close` waits for."""
        task = turn.loop.create_task(work(turn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _renew_later(self, turn: Turn) -> None:
        turn.renewal = turn.loop.call_later(self.lease / 3, self._run_soon, turn, self._renew)

    async def _renew(self, turn: Turn) -> None:
        """Extend the lease of a long turn."""
        if turn.ended:
            return
        try:
            await self._extend(turn)
            if turn.ended and not turn.lost:  # meanwhile
                await self.store.release(_lease_of(turn.key), holder=turn.holder)
        except SessionStoreError as error:
            logger.warning("The lease of a turn could not be renewed: %s", error)
        if not turn.ended:
            self._renew_later(turn)

    async def _extend(self, turn: Turn) -> None:
        started = time.monotonic()
        taken = await self._lease(turn)
        turn.valid_until = started + self.lease if taken else started

    def _timeout(self, key: SessionKey) -> TurnTimeout:
        return TurnTimeout(
            f"Session {key.session_id!r} of user {key.user_id!r} was busy for {self.wait:g} s with"
            " earlier messages: send this one again, or raise turn_wait."
        )


def _lease_of(key: SessionKey) -> SessionKey:
    return SessionKey(f"{LEASES}{key.app_name}", key.user_id, key.session_id)


def _admit(turn: Turn) -> bool:
    """Wake a waiting turn. Return whether its event loop is still open."""

    def wake() -> None:
        if not turn.admitted.done():
            turn.admitted.set_result(None)

    try:
        turn.loop.call_soon_threadsafe(wake)
    except RuntimeError:
        return False
    return True
