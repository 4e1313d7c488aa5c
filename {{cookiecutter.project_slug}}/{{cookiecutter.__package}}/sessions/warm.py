"""Logs of recently used sessions, decoded, so that a turn costs its new events and not its history.

A stored event never changes. What can change is that a log grows, or that a session is deleted and
created again under its id; the first is read from the store each time, the second shows in the mark.
Losing a log from here therefore costs time and nothing else.
"""

import asyncio
import gc
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from google.adk.events.event import Event

from .codec import decode_event
from .store import SessionKey, StoredEvent

EVENT_OVERHEAD = 5_000
"""Bytes that a small decoded event takes in memory, by `tracemalloc`; its payload comes on top."""

_SLICE_SECONDS = 0.002


class EventLog:
    """The first events of one incarnation of a session, decoded."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.events: list[Event] = []
        self.revisions: dict[str, int] = {}
        """The first revision of each id: distinct events may share one."""
        self.size = 0
        """Estimated bytes in memory."""
        self._lock = Lock()

    @property
    def revision(self) -> int:
        """How many events are here."""
        return len(self.events)

    def extend(self, start: int, events: Sequence[Event], sizes: Sequence[int]) -> None:
        """Add what continues the log of what was read behind a revision, with the bytes of each event.

        Another reader may have added some of it in the meantime.
        """
        with self._lock:
            known = self.revision - start
            if known < 0:
                return  # a gap
            for revision, event in enumerate(events[known:], self.revision + 1):
                self.revisions.setdefault(event.id, revision)
            self.size += sum(EVENT_OVERHEAD + 2 * size for size in sizes[known:])
            self.events += events[known:]


class WarmLogs:
    """The logs that fit into `max_bytes`, least recently used out first. Threads may share it."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        self._logs: OrderedDict[SessionKey, EventLog] = OrderedDict()
        self._sizes: dict[SessionKey, int] = {}
        self._lock = Lock()

    def get(self, key: SessionKey) -> EventLog | None:
        """Return the log of a session, which may be behind the store."""
        with self._lock:
            log = self._logs.get(key)
            if log is not None:
                self._logs.move_to_end(key)
            return log

    def put(self, key: SessionKey, log: EventLog) -> None:
        """Keep a log that is new or has grown, and drop others until all fit."""
        with self._lock:
            self._drop(key)
            if log.size > self.max_bytes:
                return
            self._logs[key] = log
            self._sizes[key] = log.size
            self.size += log.size
            while self.size > self.max_bytes:
                self._drop(next(iter(self._logs)))

    def drop(self, key: SessionKey) -> None:
        """Forget a session, because it is gone or another one has its id."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._logs.clear()
            self._sizes.clear()
            self.size = 0

    def _drop(self, key: SessionKey) -> None:
        if self._logs.pop(key, None) is not None:
            self.size -= self._sizes.pop(key)


async def decode_events(stored: Sequence[StoredEvent]) -> tuple[list[Event], list[int]]:
    """Decode events, and say how many bytes each took, without keeping other tasks waiting for long.

    Raises:
        CorruptSession: one of them cannot be read.
    """
    events: list[Event] = []
    sizes: list[int] = []
    records = iter(stored)
    while True:
        with _no_collection():
            pause = time.perf_counter() + _SLICE_SECONDS
            for record in records:
                events.append(decode_event(record.data))
                sizes.append(len(record.data))
                if time.perf_counter() > pause:
                    break
            else:
                return events, sizes
        await asyncio.sleep(0)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from running in between: an event is a hundred objects, none of them garbage.

    Each few hundred would make it look at the young ones, and, before long, at every object of the process.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
