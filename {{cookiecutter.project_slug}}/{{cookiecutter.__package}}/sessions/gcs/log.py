"""Reading a session of `gcs.py`: its head, the events behind it, and the segments before it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from ..store import Head, Position, StoredEvent
from .bucket import Bucket, Gone, Item
from .names import event_of, has_head, head_of, revision_of
from .recent import Recent
from .records import Base, Entry, Segment, decode_events


@dataclass(frozen=True, slots=True)
class View:
    """A session as it was found."""

    item: Item
    """The head object."""
    base: Base
    head: Head
    """As of the last event."""
    state: Mapping[str, bytes]
    tail: Mapping[int, tuple[Item, Entry]]
    """The events behind `base`, as far as they were read."""


class Log:
    """Reads sessions by their folders, and remembers those that it has read."""

    def __init__(self, bucket: Bucket) -> None:
        self.seen: Recent[View] = Recent()
        """Without their events."""
        self._bucket = bucket

    def remember(self, folder: str, view: View) -> None:
        """Keep a session for the next call."""
        self.seen.put(folder, replace(view, tail={}))

    def forget(self, folder: str) -> None:
        """Have the next call look for itself."""
        self.seen.put(folder, None)

    def look(self, folder: str, after: int = 0) -> View | None:
        """Read a session, and its events after a revision, even if it has expired."""
        for _ in self._bucket.patiently():
            with suppress(Gone):  # it was compacted or deleted in the middle of it
                seen = self.seen.get(folder) or self._head(folder)
                if seen is None:
                    return None
                at = seen.head.position
                first = max(min(after, at.revision), seen.base.head.position.revision) + 1
                items = self._bucket.find(folder, event_of(folder, at.incarnation, first))
                if not has_head(folder, items):
                    return None
                if view := self.view(folder, items, seen):
                    return view
            self.forget(folder)
        raise AssertionError

    def read(
        self, folder: str, after: int, limit: int | None, since: float | None
    ) -> tuple[View | None, Sequence[StoredEvent]]:
        """Read a session, and the wanted events of it."""
        for _ in self._bucket.patiently():
            seen, first = self.seen.get(folder), after
            if seen and limit is not None:
                first = max(after, seen.head.position.revision - limit)
            view = self.look(folder, first)
            with suppress(Gone):
                return view, self._events(view, after, limit, since) if view else ()
            self.forget(folder)
        raise AssertionError

    def _head(self, folder: str) -> View | None:
        """Return what the head alone says of a session."""
        item = self._bucket.get(head_of(folder))
        if item is None:
            return None
        base = self.base(item)
        return View(item, base, base.head, base.state, {})

    def base(self, item: Item) -> Base:
        """Return what a head object holds."""
        return self._bucket.read(item, Base.decode)

    def view(self, folder: str, items: Sequence[Item], seen: View | None) -> View | None:
        """Put together what is listed and what was seen before, if that is the same session."""
        item, bucket = items[-1], self._bucket
        unchanged = seen is not None and seen.item.generation == item.generation
        base = seen.base if seen and unchanged else self.base(item)
        incarnation = base.head.position.incarnation
        head, state = base.head, dict(base.state)
        if seen and seen.head.position.incarnation != incarnation:
            return None
        if seen and seen.head.position.revision > head.position.revision:
            head, state = seen.head, dict(seen.state)
        behind = {
            revision: each
            for each in items
            if (revision := revision_of(each, folder, incarnation)) > base.head.position.revision
        }
        entries = dict(zip(behind, bucket.read_all(behind.values(), Entry.decode), strict=True))
        while entry := entries.get(head.position.revision + 1):
            state |= entry.state.session
            head = replace(
                head,
                position=Position(incarnation, entry.event.revision),
                updated_at=entry.event.timestamp,
                expires_at=entry.expires_at,
            )
        tail = {revision: (behind[revision], entry) for revision, entry in entries.items()}
        return View(item, base, head, state, tail)

    def _events(
        self, view: View, after: int, limit: int | None, since: float | None
    ) -> Sequence[StoredEvent]:
        """Return the wanted end of the log.

        Raises:
            Gone: a segment was put into another one and deleted after the head was read.
        """
        last, compacted = view.head.position.revision, view.base.head.position.revision
        first = after if limit is None else max(after, last - limit)
        events = [view.tail[at][1].event for at in range(max(first, compacted) + 1, last + 1)]
        wanted = [part for part in view.base.segments if part.last > first]
        if since is not None:
            oldest = [part.oldest for part in wanted] + [event.timestamp for event in events]
            older = [at for at, timestamp in enumerate(oldest) if timestamp < since]
            wanted = wanted[older[-1] :] if older else wanted
        parts = self._bucket.together(*(partial(self.segment, part) for part in wanted))
        events = [event for part in parts for event in part if event.revision > first] + events
        if since is not None:
            older = [at for at, event in enumerate(events, 1) if event.timestamp < since]
            events = events[older[-1] :] if older else events
        return events

    def segment(self, part: Segment) -> Sequence[StoredEvent]:
        """Return the events of a segment."""
        return self._bucket.read(Item(part.name, part.generation, 0), decode_events)
