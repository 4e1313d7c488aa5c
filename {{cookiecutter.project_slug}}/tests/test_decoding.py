"""Decoding in slices, which leaves the event loop to others and the garbage collector at rest."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from google.adk.events.event import Event

from {{ cookiecutter.__package }}.sessions import decoding
from {{ cookiecutter.__package }}.sessions.codec import encode_event
from {{ cookiecutter.__package }}.sessions.decoding import decode_events
from {{ cookiecutter.__package }}.sessions.errors import CorruptSession
from {{ cookiecutter.__package }}.sessions.store import StoredEvent

from .support import event

SOME = [StoredEvent(n, 1.0, encode_event(event(str(n)), {})) for n in range(1, 501)]


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Slices of a few events, on any machine; and a collector that knows nothing yet."""
    monkeypatch.setattr(decoding, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(decoding, "_collector", decoding._Collector())
    yield
    assert gc.isenabled()
    gc.unfreeze()


class Garbage:
    """Something that only the garbage collector can remove."""

    def __init__(self) -> None:
        self.itself = self


async def test_others_have_their_turn_between_slices() -> None:
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.ensure_future(tick())
    decoded = await decode_events(SOME)
    ticking.cancel()
    assert turns > 400
    assert [len(record.data) for record in SOME] == decoded.sizes
    assert [encode_event(each, {}) for each in decoded.events] == [each.data for each in SOME]
    assert [decoded.places[each.id] for each in decoded.events] == list(range(1, 501))


async def test_the_collector_is_left_as_it_was() -> None:
    with pytest.raises(CorruptSession):
        await decode_events([*SOME, StoredEvent(501, 1.0, b"{")])
    assert gc.isenabled()
    gc.disable()
    try:
        await decode_events(SOME)
        assert not gc.isenabled()
    finally:
        gc.enable()


async def test_no_event_is_looked_at_by_the_collector() -> None:
    """It looks at what is young between slices, and finds no event there."""
    seen = []

    def look(phase: str, info: dict[str, int]) -> None:
        young = [each for each in gc.get_objects(generation=0) if isinstance(each, Event)]
        seen.append((info["generation"], len(young)))

    gc.callbacks.append(look)
    try:
        decoded = await decode_events(SOME)
    finally:
        gc.callbacks.remove(look)
    assert len(decoded.events) == 500
    assert set(seen) == {(0, 0)}


async def test_garbage_of_others_is_removed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was young when it became garbage is removed at once, and the rest after a while."""
    monkeypatch.setattr(decoding, "SLICES_UNSEEN", 100)
    old = Garbage()
    await decode_events(SOME[:50])
    left = [weakref.ref(old)]
    del old
    made = 0

    async def litter() -> None:
        nonlocal made
        while True:
            left.append(weakref.ref(Garbage()))
            made += 1
            await asyncio.sleep(0)

    littering = asyncio.ensure_future(litter())
    await decode_events(SOME)
    littering.cancel()
    assert made > 400
    assert sum(each() is not None for each in left[1:]) < 10
    kept = []
    while left[0]() is not None:
        kept.append(await decode_events(SOME))
        assert len(kept) < 200


async def test_what_an_application_has_frozen_stays_so() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    await decode_events(SOME)
    assert gc.get_freeze_count() >= frozen - 1_000  # less what was removed since
