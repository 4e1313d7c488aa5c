"""Reads a session: its head, the events after the head, and the segments before it."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..store import Head, Position, StoredEvent
from .bucket import Bucket, Item
from .errors import Gone
from .names import event_of, has_head, head_of, revision_of
from .recent import Recent
from .records import Checkpoint, EventRecord, Segment, decode_segment


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as it was read."""

    item: Item
    """The head object."""
    checkpoint: Checkpoint
    """The content of the head object."""
    head: Head
    """As of the last event."""
    state: Mapping[str, bytes]
    """Likewise."""
    tail: Mapping[int, tuple[Item, EventRecord]]
    """The events after the checkpoint that were read, by revision."""


class SessionLog:
    """Reads sessions by folder, and caches their views."""

    def __init__(self, bucket: Bucket) -> None:
        self.seen: Recent[SessionView] = Recent()
        """The last views by folder, without events and with settled shared state."""
        self._bucket = bucket

    def remember(self, folder: str, view: SessionView) -> None:
        """Cache the view of a session."""
        self.seen[folder] = replace(view, tail={})

    def forget(self, folder: str) -> None:
        """Drop the view of a session, so that the next call reads the head."""
        self.seen.pop(folder, None)

    async def read(
        self, folder: str, after: int = 0, limit: int | None = None, since: float | None = None
    ) -> tuple[SessionView | None, Sequence[StoredEvent]]:
        """Return a session, even if it has expired, and the selected events."""
        began = time.monotonic()
        while True:
            try:
                view = await self._look(folder, after, limit)
                return view, await self._events(view, after, limit, since) if view else ()
            except Gone:  # it was compacted, or deleted and created again
                self.forget(folder)
            await self._bucket.pause(began)

    async def _look(self, folder: str, after: int, limit: int | None) -> SessionView | None:
        """Return a session with its new events, and those that may be selected."""
        seen = self.seen.get(folder) or await self._at_head(folder)
        if seen is None:
            return None
        position = seen.head.position
        known = min(_last_unwanted(after, limit, position.revision), position.revision)
        known = max(known, seen.checkpoint.revision)
        start = event_of(folder, position.incarnation, known + 1)
        items = await self._bucket.find(folder, start)
        return await self.view(folder, items, seen) if has_head(folder, items) else None

    async def _at_head(self, folder: str) -> SessionView | None:
        """Return a session as of its checkpoint."""
        item = await self._bucket.get(head_of(folder))
        if item is None:
            return None
        checkpoint = await self._bucket.read(item, Checkpoint.decode)
        return SessionView(item, checkpoint, checkpoint.head, checkpoint.state, {})

    async def view(
        self, folder: str, items: Sequence[Item], seen: SessionView | None = None
    ) -> SessionView:
        """Return the session of listed objects and of its cached view.

        Raises:
            Gone: the cached view is of another incarnation, or an object was replaced after the list.
        """
        item = items[-1]
        if seen and seen.item.generation == item.generation:
            checkpoint = seen.checkpoint
        else:
            checkpoint = await self._bucket.read(item, Checkpoint.decode)
        head, state = checkpoint.head, dict(checkpoint.state)
        incarnation = head.position.incarnation
        if seen and seen.head.position.incarnation != incarnation:
            raise Gone(item.name)
        if seen and seen.head.position.revision > checkpoint.revision:
            head, state = seen.head, dict(seen.state)
        new = [
            each for each in items if revision_of(each, folder, incarnation) > checkpoint.revision
        ]
        records = await self._bucket.read_all(new, EventRecord.decode)
        tail = {record.event.revision: (each, record) for each, record in records}
        while found := tail.get(head.position.revision + 1):
            record = found[1]
            state |= record.state.session
            head = replace(
                head,
                position=Position(incarnation, record.event.revision),
                updated_at=record.event.timestamp,
                expires_at=record.expires_at,
            )
        return SessionView(item, checkpoint, head, state, tail)

    async def segment(self, segment: Segment) -> Sequence[StoredEvent]:
        """Return the events of a segment.

        Raises:
            Gone: it was merged into another one, and deleted.
        """
        return await self._bucket.read(Item(segment.name), decode_segment)

    async def _events(
        self, view: SessionView, after: int, limit: int | None, since: float | None
    ) -> Sequence[StoredEvent]:
        """Return the selected events."""
        last = view.head.position.revision
        first = _last_unwanted(after, limit, last) + 1
        events = [
            view.tail[revision][1].event
            for revision in range(max(first, view.checkpoint.revision + 1), last + 1)
        ]
        segments = [part for part in view.checkpoint.segments if part.last >= first]
        if since is not None:
            oldest = [*(part.oldest for part in segments), *(each.timestamp for each in events)]
            segments = segments[max(_last_before(since, oldest), 0) :]
        parts = await asyncio.gather(*map(self.segment, segments))
        events = [each for part in parts for each in part if each.revision >= first] + events
        if since is not None:
            events = events[_last_before(since, [each.timestamp for each in events]) + 1 :]
        return events


def _last_unwanted(after: int, limit: int | None, last: int) -> int:
    """Return the revision before the first selected event."""
    return after if limit is None else max(after, last - limit)


def _last_before(since: float, times: Sequence[float]) -> int:
    """Return the index of the last earlier time, or -1."""
    return max((index for index, each in enumerate(times) if each < since), default=-1)
