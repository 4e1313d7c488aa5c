"""What `gcs.py` tidies up: sessions are compacted, and what has expired or was left over is removed."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from secrets import token_hex

from ..errors import CorruptSession
from ..store import ScopedState
from .bucket import Bucket, Gone, Item
from .log import Log, View
from .names import Names, has_head, head_of, log_of, revision_of
from .records import Base, Entry, Segment, encode_events, fades, keep_until
from .shared import Shared

COMPACT_AT = 100
"""Events behind the head that are then put into a segment."""
GRACE = 300.0
"""Seconds that what has been compacted, or has expired, is left alone."""
PURGE_EVERY = 60.0
"""Seconds between two looks of one process for sessions that have expired."""
PURGE_BATCH = 1_000
"""Objects that are looked at then."""


class Housekeeping:
    """Keeps a bucket tidy; what ends in `_later` or `_some` goes on in the background."""

    def __init__(self, bucket: Bucket, names: Names, log: Log, shared: Shared) -> None:
        self._bucket = bucket
        self._names = names
        self._log = log
        self._shared = shared
        self._lock = threading.Lock()
        self._compacting: set[str] = set()
        self.purge_at = time.monotonic() + PURGE_EVERY
        self._purge_from: str | None = None

    def after_append(self, folder: str, view: View) -> None:
        """Compact a session when it is time for that."""
        behind = view.head.position.revision - view.base.head.position.revision
        due = behind >= COMPACT_AT and behind % 10 == 0
        if not due and not fades(view.base.keep_until, view.head):
            return
        with self._lock:
            if folder in self._compacting:
                return
            self._compacting.add(folder)

        def compact() -> None:
            try:
                self.compact(folder)
            finally:
                self._compacting.discard(folder)

        self._bucket.run_later(compact)

    def compact(self, folder: str) -> None:
        """Put the events behind the head into a segment, and move the head up to them.

        A segment takes in those before it that are not longer, so that there are few of them, and
        those that the bucket may soon remove.
        """
        bucket, log, items = self._bucket, self._log, self._bucket.find(folder)
        if not has_head(folder, items):
            return
        try:
            view = log.view(folder, items, None)
            if view is None or not view.tail:
                return
            self._shared.settle(view)
            head, parts = view.head, [*view.base.segments]
            events = [entry.event for _, (_, entry) in sorted(view.tail.items())]
            while parts and (
                parts[-1].last - parts[-1].first < len(events)
                or any(fades(part.keep_until, head) for part in parts)
            ):
                events = [*log.segment(parts.pop()), *events]
        except Gone:
            return  # somebody else is at it
        first, last, until = events[0].revision, events[-1].revision, keep_until(head)
        name = f"{log_of(folder, head.position.incarnation)}{first:010}-{last:010}-{token_hex(4)}"
        segment = bucket.put(name, encode_events(events), keep_until=until, listed=False)
        if segment is None:
            return
        oldest = min(event.timestamp for event in events)
        parts.append(Segment(name, segment.generation, first, last, oldest, until))
        kept = [part.keep_until for part in parts if part.keep_until is not None]
        base = Base(head, view.state, ScopedState(), parts, min(kept, default=None))
        moved = bucket.put(
            head_of(folder), base.encode(), generation=view.item.generation, keep_until=until
        )
        if moved is None:
            bucket.delete(segment)
        elif moved.time - view.item.time > GRACE * 1_000_000:
            self._remove_compacted(folder, view, items[:-1])

    def _remove_compacted(self, folder: str, before: View, items: Sequence[Item]) -> None:
        """Delete what the head before this one already did without."""
        known = {part.name for part in before.base.segments}
        incarnation, compacted = (
            before.head.position.incarnation,
            before.base.head.position.revision,
        )
        old = [
            item
            for item in items
            if item.name not in known and not revision_of(item, folder, incarnation) > compacted
        ]
        self._bucket.together(*(partial(self._bucket.delete, item) for item in old))

    def delete(self, folder: str, only: Item | None = None) -> None:
        """Delete the head, so that the session is gone, and then all that was its own."""
        bucket, deleted = self._bucket, ""
        self._log.forget(folder)
        for _ in bucket.patiently():
            items = bucket.find(folder)
            if not items:
                return
            head = items[-1] if has_head(folder, items) else None
            if head:
                if only and only.generation != head.generation:
                    return
                try:
                    incarnation = self._log.base(head).head.position.incarnation
                except Gone:
                    continue
                except CorruptSession:
                    incarnation = str(head.generation)
                if deleted not in ("", incarnation):
                    return  # it has been created again
                if not bucket.delete(head):
                    continue
                deleted = incarnation
            bucket.together(*(partial(bucket.delete, item) for item in items if item is not head))

    def sweep_later(self, folder: str) -> None:
        """Delete what does not belong to the session that is there, and is left of earlier ones."""
        self._bucket.run_later(self._sweep, folder)

    def _sweep(self, folder: str) -> None:
        bucket, items = self._bucket, self._bucket.find(folder)
        if not items:
            return
        own = folder  # what may be kept, if the head cannot be read any more
        if has_head(folder, items):
            with suppress(Gone):
                own = log_of(folder, self._log.base(items.pop()).head.position.incarnation)
        elif max(item.time for item in items) / 1_000_000 < time.time() - GRACE:
            own = "nothing"
        left = [item for item in items if not item.name.startswith(own)]
        bucket.together(*(partial(bucket.delete, item) for item in left))

    def expire_later(self, folder: str, view: View | None, now: float) -> None:
        """Delete a session if it has expired a while ago, or what is left of one without a head."""
        if view is None or view.head.expired(now - GRACE):
            self._bucket.run_later(self._expire, folder, now)

    def _expire(self, folder: str, now: float) -> None:
        view = self._log.look(folder)
        if view is None:
            self._sweep(folder)
        elif view.head.expired(now - GRACE):
            self.delete(folder, only=view.item)

    def purge_some(self, folder: str, now: float) -> None:
        """Look now and then at some objects, beginning with those behind a session."""
        with self._lock:
            if time.monotonic() < self.purge_at:
                return
            self.purge_at = time.monotonic() + PURGE_EVERY
        start = folder if self._purge_from is None else self._purge_from
        self._bucket.run_later(self._purge, start, now)

    def _purge(self, start: str, now: float) -> None:
        items = self._bucket.find(self._names.root, start, limit=PURGE_BATCH)
        folders = self._names.by_folder(items)
        self._purge_from = ""
        if len(items) == PURGE_BATCH:
            self._purge_from = [*folders][-1] if len(folders) > 1 else f"{items[-1].name}!"
        for folder, found in folders.items():
            with suppress(CorruptSession):
                if self._seems_over(folder, found, now):
                    self._expire(folder, now)

    def _seems_over(self, folder: str, items: Sequence[Item], now: float) -> bool:
        """Whether a closer look is worth its requests."""
        if not has_head(folder, items):
            return True
        try:
            heads = [self._log.base(items[-1]).head.expires_at]
            if len(items) > 1 and items[-2].name[-10:].isdecimal():
                heads.append(self._bucket.read(items[-2], Entry.decode).expires_at)
        except Gone:
            return False
        return all(expires_at is not None and expires_at < now - GRACE for expires_at in heads)
