"""Logs of recently used sessions, decoded, so that a turn costs its new events and not its history.

A stored event never changes. What can change is that a log grows, or that a session is deleted and
created again under its id; the first is read from the store each time, the second shows in the mark.
Losing a log from here therefore costs time and nothing else.
"""

from collections import OrderedDict
from threading import Lock

from google.adk.events.event import Event

from .decoding import Decoded
from .store import SessionKey

EVENT_OVERHEAD = 5_000
"""Bytes that a small decoded event takes in memory, by `tracemalloc`; its payload comes on top."""


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

    def extend(self, start: int, new: Decoded) -> None:
        """Add what continues the log of what was read behind a revision.

        Another reader may have added some of it in the meantime.
        """
        with self._lock:
            known = self.revision - start
            if known < 0:
                return  # a gap
            events, sizes = new.events[known:], new.sizes[known:]
            if self.revision:
                for revision, event in enumerate(events, self.revision + 1):
                    self.revisions.setdefault(event.id, revision)
            else:
                self.revisions = new.places
            self.size += EVENT_OVERHEAD * len(events) + 2 * sum(sizes)
            self.events += events


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
