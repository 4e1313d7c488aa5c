"""Many events decoded without keeping other tasks waiting.

Two things would: the decoding itself, which is done in slices, and Python's garbage collector. An event is
a hundred objects, none of them garbage. Each few hundred make the collector look at the young ones, and,
before long, at every object of the process, which takes a tenth of a second where there are a million.
"""

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from google.adk.events.event import Event

from .codec import decode_event
from .store import StoredEvent

SLICE_SECONDS = 0.002
"""For how long other tasks wait."""
SLICES_UNSEEN = 1_000
"""Slices whose objects the collector need not have seen before it looks at everything once."""


@dataclass(slots=True)
class Decoded:
    """A part of a session's log."""

    events: list[Event] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """How many bytes each was."""
    places: dict[str, int] = field(default_factory=dict)
    """Where each id comes first, from 1: distinct events may share one."""

    def add(self, event: Event, size: int) -> None:
        """Put an event behind the others."""
        self.events.append(event)
        self.sizes.append(size)
        self.places.setdefault(event.id, len(self.events))


async def decode_events(stored: Sequence[StoredEvent]) -> Decoded:
    """Return the events decoded.

    Raises:
        CorruptSession: one of them cannot be read.
    """
    decoded = Decoded()
    while True:
        collects = gc.isenabled()
        if collects and decoded.events:
            _collector.remove_young()
        gc.disable()
        try:
            done = _decode_some(stored, decoded)
            if not done and collects:
                _collector.pass_over()
        finally:
            if collects:
                gc.enable()
        if done:
            return decoded
        await asyncio.sleep(0)


def _decode_some(stored: Sequence[StoredEvent], decoded: Decoded) -> bool:
    """Decode what comes next, for as long as a slice takes; tell whether that was all."""
    pause = time.perf_counter() + SLICE_SECONDS
    for place in range(len(decoded.events), len(stored)):
        data = stored[place].data
        decoded.add(decode_event(data), len(data))
        if time.perf_counter() > pause:
            break
    return len(decoded.events) == len(stored)


class _Collector:
    """Spares the garbage collector the objects of a slice, which are known to be none."""

    def __init__(self) -> None:
        self._collections = -1
        self._left = 0

    def remove_young(self) -> None:
        """Remove what has become garbage since the last slice, before it is taken for old."""
        if self._left:
            gc.collect(0)

    def pass_over(self) -> None:
        """Put all young objects with the old ones, as if they had been looked at.

        `gc.freeze` sets all objects aside and `gc.unfreeze` puts them with the oldest, without looking at one:
        https://docs.python.org/3/library/gc.html#gc.freeze. Some garbage of others may be among them, and
        the collector begins to count anew. Therefore that ends after a while until it has looked at
        everything, and is not done at all where an application has frozen what it wants left alone.
        """
        collections = gc.get_stats()[2]["collections"]
        if collections != self._collections:
            self._collections = collections
            self._left = SLICES_UNSEEN
        if self._left and gc.get_freeze_count():
            self._left = 0
        if self._left:
            self._left -= 1
            gc.freeze()
            gc.unfreeze()


_collector = _Collector()
