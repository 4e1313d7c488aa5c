"""A cache of the decoded events of recently used sessions. A turn fetches and decodes only new events.

A stored event never changes. A log can only grow, or be deleted and created again. New events are read from
the store each time, and a new creation has another incarnation. So dropping a log costs only time.

Readers get copies (`copies`), because a caller may change its events. Copying a decoded event takes about half
the time of decoding it, and fetches nothing: see `docs/benchmarks` of the template.
"""

import asyncio
import copy
import time
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from google.adk.events.event import Event

from .codec import SLICE_SECONDS
from .store import SessionKey

EVENT_OVERHEAD = 5_000
"""Bytes that a small decoded event takes in memory without its payload, measured by `tracemalloc`."""


class EventLog:
    """The first decoded events of one incarnation of a session."""

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self.events: list[Event] = []
        self.size = EVENT_OVERHEAD
        """Estimated bytes in memory."""
        self._lock = Lock()

    def extend(self, start: int, events: Sequence[Event], size: int) -> None:
        """Add events after revision `start`. `size` is their encoded length in bytes.

        Another reader may have added some of them meanwhile.
        """
        with self._lock:
            known = len(self.events) - start
            if 0 <= known < len(events):
                self.size += EVENT_OVERHEAD * (len(events) - known) + 2 * size
                self.events += events[known:]


class EventCache:
    """A thread-safe LRU cache of logs, of at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        self._logs: OrderedDict[SessionKey, tuple[EventLog, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: SessionKey) -> EventLog | None:
        """Return the log of a session. The store may have more events."""
        with self._lock:
            if key not in self._logs:
                return None
            self._logs.move_to_end(key)
            return self._logs[key][0]

    def put(self, key: SessionKey, log: EventLog) -> None:
        """Add a new or grown log, and drop others until all fit."""
        with self._lock:
            self._drop(key)
            if log.size <= self.max_bytes:
                self._logs[key] = log, log.size
                self.size += log.size
            while self.size > self.max_bytes:
                self._drop(next(iter(self._logs)))

    def drop(self, key: SessionKey) -> None:
        """Drop the log of a session that is gone or was created again."""
        with self._lock:
            self._drop(key)

    def drop_user(self, app_name: str, user_id: str) -> None:
        """Drop the logs of a user."""
        with self._lock:
            for key in [*self._logs]:
                if (key.app_name, key.user_id) == (app_name, user_id):
                    self._drop(key)

    def clear(self) -> None:
        """Drop all logs."""
        with self._lock:
            self._logs.clear()
            self.size = 0

    def _drop(self, key: SessionKey) -> None:
        if key in self._logs:
            self.size -= self._logs.pop(key)[1]


async def copies(events: Sequence[Event]) -> list[Event]:
    """Return deep copies of events. Other tasks run in between."""
    copied: list[Event] = []
    pause = time.perf_counter() + SLICE_SECONDS
    for event in events:
        copied.append(copy.deepcopy(event))
        if time.perf_counter() > pause:
            await asyncio.sleep(0)
            pause = time.perf_counter() + SLICE_SECONDS
    return copied
