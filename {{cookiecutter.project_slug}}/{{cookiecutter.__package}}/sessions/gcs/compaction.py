"""Compaction: the events after the head become a segment, and the head advances to them.

This keeps the number of objects small. It also updates the custom time of objects to a day after the expiry of the
session, so the bucket's rule removes no object of an active session.

A later compaction deletes the events, more than `GRACE` seconds after the head has advanced. A stale writer may
then find the name of its event free again, but it notices the new head.
"""

import asyncio
import logging
from collections.abc import Sequence
from secrets import token_hex

from ..errors import SessionStoreError
from ..store import SessionRecord, StoredEvent
from .bucket import Bucket, Item
from .errors import Gone
from .log import SessionLog, SessionView
from .names import event_of, has_head, head_of, revision_of
from .records import DAY, Checkpoint, Segment, encode, keep_until
from .shared import SharedState

logger = logging.getLogger(__name__)

COMPACT_AT = 100
"""Events after the head that become a segment."""
GRACE = 300.0
"""Seconds that compacted events are kept. No request takes that long."""


async def compact_if_due(
    bucket: Bucket, log: SessionLog, shared: SharedState, folder: str, view: SessionView
) -> None:
    """Compact a session if it is due. If it fails, a later call tries again."""
    if _is_due(view):
        try:
            await _compact(bucket, log, shared, folder)
        except SessionStoreError as error:
            logger.warning("Compaction was put off: %s", error)
        except Gone:
            pass  # another process has compacted or deleted the session


async def _compact(bucket: Bucket, log: SessionLog, shared: SharedState, folder: str) -> None:
    items = await bucket.find(folder)
    view = await log.view(folder, items) if has_head(folder, items) else None
    if view is None or not _is_due(view):
        return
    await shared.settle(view)
    events, kept = await _joined(log, view)
    until = keep_until(view.head)
    if until is not None:
        await asyncio.gather(*(bucket.postpone(Item(segment.name), until) for segment in kept))
    segment = await _write(bucket, folder, view, events)
    checkpoint = Checkpoint(view.head, view.state, segments=[*kept, segment])
    moved = await bucket.put(
        head_of(folder), encode(checkpoint), generation=view.item.generation, custom_time=until
    )
    # Otherwise the segment stays until a later compaction. The head may refer to it, because the reply to an
    # earlier try may have been lost.
    if moved and moved.time - view.item.time > GRACE:
        await _delete_compacted(bucket, folder, view, items[:-1])


async def rewrite(
    bucket: Bucket,
    log: SessionLog,
    shared: SharedState,
    folder: str,
    old: SessionRecord,
    new: SessionRecord,
) -> None:
    """Compact a session, with events and state of `new` where it has those of `old`.

    Nothing is done if the session is another one, or is changed meanwhile.
    """
    items = await bucket.find(folder)
    view = await log.view(folder, items) if has_head(folder, items) else None
    incarnation = old.head.position.incarnation
    if view is None or view.head.position.incarnation != incarnation:
        return
    await shared.settle(view)
    parts = [await log.segment(segment) for segment in view.checkpoint.segments]
    parts.append([record.event for _, (_, record) in sorted(view.tail.items())])
    changes = dict(zip(old.events, new.events, strict=True))
    events = [changes.get(event, event) for part in parts for event in part]
    state = dict(view.state)
    for name, value in old.state.session.items():
        if state.get(name) == value:
            state[name] = new.state.session[name]
    segments = [await _write(bucket, folder, view, events)] if events else []
    content, until = encode(Checkpoint(view.head, state, segments=segments)), keep_until(view.head)
    log.forget(folder)
    if await bucket.put(
        head_of(folder), content, generation=view.item.generation, custom_time=until
    ):
        for item in items[:-1]:
            if revision_of(item, folder, incarnation):  # a late writer must find its name taken
                await bucket.put(
                    item.name, encode([]), generation=item.generation, custom_time=until
                )
            else:
                await bucket.delete(item)


async def _joined(
    log: SessionLog, view: SessionView
) -> tuple[Sequence[StoredEvent], Sequence[Segment]]:
    """Return the events of a new segment, and the segments that stay.

    Segments that are not longer than the new one are merged into it, which keeps their number small.
    """
    events = [record.event for _, (_, record) in sorted(view.tail.items())]
    kept = [*view.checkpoint.segments]
    while kept and kept[-1].last - kept[-1].first < len(events):
        events = [*await log.segment(kept.pop()), *events]
    return events, kept


async def _write(
    bucket: Bucket, folder: str, view: SessionView, events: Sequence[StoredEvent]
) -> Segment:
    """Write a segment."""
    first, last = events[0].revision, events[-1].revision
    start = event_of(folder, view.head.position.incarnation, first)
    name = f"{start}-{last:010}-{token_hex(4)}"
    await bucket.put(name, encode(events), custom_time=keep_until(view.head), inline=False)
    return Segment(name, first, last, min(event.timestamp for event in events))


async def _delete_compacted(
    bucket: Bucket, folder: str, before: SessionView, items: Sequence[Item]
) -> None:
    """Delete the objects that the previous head no longer needed."""
    used = {segment.name for segment in before.checkpoint.segments}
    incarnation = before.head.position.incarnation
    await bucket.delete_all(
        item
        for item in items
        if item.name not in used
        and revision_of(item, folder, incarnation) <= before.checkpoint.revision
    )


def _is_due(view: SessionView) -> bool:
    """Return whether there are many events after the head, or the bucket's rule may soon remove the head."""
    last, first = view.head, view.checkpoint.head
    if last.expires_at and first.expires_at and last.expires_at - first.expires_at > DAY / 2:
        return True
    return last.position.revision - first.position.revision >= COMPACT_AT
