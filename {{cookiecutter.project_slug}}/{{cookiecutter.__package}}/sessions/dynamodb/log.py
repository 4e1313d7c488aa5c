"""Reads the log of a session."""

from ..store import Position, StoredEvent
from .items import event_name, join_parts
from .keys import Item
from .table import Table


class EventMissing(Exception):
    """An event is missing, or not visible yet."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"event {revision} is missing")


class LogReader:
    """Reads the log of a session backwards, page by page.

    Items may be parts of large events, newer than the head that was read at the same time, or left over from an
    earlier session with the same id.
    """

    def __init__(self, table: Table, pk: str, *, after: int, limit: int | None) -> None:
        self._table = table
        self._pk = pk
        self._after = after
        self._limit = limit
        self._start: Item | None = None
        self._ended = limit == 0
        self._parts: dict[tuple[int, str], dict[int, Item]] = {}

    async def read_page(self) -> None:
        """Read the next page: `limit` items, then twice as many, or 1 MB without a limit."""
        if self._ended:
            return
        items, self._start = await self._table.query(
            self._pk,
            between=(f"{self._after + 1:012d}", "~"),
            start=self._start,
            ScanIndexForward=False,
            **({"Limit": self._limit} if self._limit else {}),
        )
        self._ended = self._start is None
        self._limit = self._limit and 2 * self._limit
        for item in items:
            revision, incarnation, part = event_name(item)
            self._parts.setdefault((revision, incarnation), {})[part] = item

    async def read_back(
        self, position: Position, *, after: int, since: float | None
    ) -> list[StoredEvent]:
        """Return the events after a revision up to a position, and only those `since` a timestamp.

        Raises:
            EventMissing: one of them is missing.
        """
        events: list[StoredEvent] = []
        for revision in range(position.revision, after, -1):
            event = await self._event(revision, position.incarnation)
            if since is not None and event.timestamp < since:
                break
            events.append(event)
        events.reverse()
        return events

    async def _event(self, revision: int, incarnation: str) -> StoredEvent:
        while True:
            event = join_parts(revision, self._parts.get((revision, incarnation), {}))
            if event is not None:
                return event
            if self._ended:
                raise EventMissing(revision)
            await self.read_page()
