"""Where the time of an operation goes: its parts one by one, each alone and with warm caches.

CPU time is this process's, all its threads together; what is left of the time on the clock is the server's, the
network's, the disk's, and waiting to be woken.
"""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import cycle, islice
from statistics import median
from typing import Any

Call = Callable[[], Awaitable[object]]
BATCHES, SECONDS = 8, 0.15
LISTED = 50


@dataclass
class AtOnce:
    """A store that has the answer already: what is left is the service."""

    stored: Any
    listed: list[Any]
    location = "nowhere"

    async def append(self, key: Any, *, expected: Any, timestamp: float, **_: Any) -> Any:
        head = self.stored.head
        position = type(expected)(expected.mark, expected.revision + 1)
        return type(head)(key, position, timestamp, head.ttl, head.expires_at)

    async def load(self, key: Any, **_: Any) -> Any:
        return self.stored

    async def list(self, app_name: str, user_id: str | None, **_: Any) -> Any:
        return self.listed


async def measure_parts(probe: Any) -> list[dict[str, Any]]:
    """Return microseconds on the clock and of CPU for each part, medians of batches."""
    return [
        {"what": what, "part": part, **await timed(call)}
        async for what, part, call in parts_of(probe)
    ]


async def parts_of(probe: Any) -> AsyncIterator[tuple[str, str, Call]]:
    """Yield what is done, which part of it, and how to do it once."""
    service, floor = probe.ours, probe.floor
    conversation = (e for e in probe.bench.conversation(7) if not e.content.parts[-1].inline_data)
    length = 100 if probe.slow else 1_000
    events = list(islice(conversation, length))
    encoded = [probe.codec.encode_event(event, event.actions.state_delta) for event in events]
    service_module = import_module("my_agent.sessions.service")
    records = import_module("my_agent.sessions.store")
    name = {"app_name": "bench", "user_id": "parts", "session_id": "parts"}
    key = records.SessionKey(*name.values())
    session = await service.create_session(**name)
    for event in events:
        await service.append_event(session, event)
    read = partial(service.get_session, **name)
    await read()
    for number in range(LISTED):
        owner = name | {"user_id": "lister of parts", "session_id": f"{number}"}
        await service.create_session(
            **owner, state={"topic": "orders", "seen": 7, "last": {"id": 1}}
        )
    list_ = partial(service.list_sessions, app_name="bench", user_id="lister of parts")
    now = time.time

    stored = await service.store.load(key, now=now(), after_revision=length)
    listed = await service.store.list("bench", "lister of parts", now=now())
    alone = service_module.PersistentSessionService(AtOnce(stored, list(listed)))
    alone._warm = service._warm

    turn = cycle(events)
    position = [session.position]

    async def append_to_store() -> None:
        head = await service.store.append(
            key,
            expected=position[0],
            event=encoded[0],
            timestamp=1.0,
            state=records.ScopedState(),
            now=now(),
        )
        position[0] = head.position

    async def encode() -> None:
        event = next(turn)
        probe.codec.encode_event(event, event.actions.state_delta)

    read_stored = partial(service.store.load, key, after_revision=length)
    yield f"next read of {length:,} events", "all", read
    yield "", "the store", lambda: read_stored(now=now())
    yield "", "the service", partial(alone.get_session, **name)
    if floor:
        yield "", "the floor's round trip", partial(floor.round_trip, "of 10")
    yield f"list of {LISTED} sessions", "all", list_
    yield "", "the store", lambda: service.store.list("bench", "lister of parts", now=now())
    yield "", "the service", partial(alone.list_sessions, app_name="bench", user_id="lister")
    yield "append", "all", append_to(service, session, events)
    position[0] = session.position
    yield "", "the store", append_to_store
    copy = session.model_copy(deep=True)
    yield "", "the service", append_to(alone, copy, events)
    yield "", "of which encoding", encode
    if floor:
        yield "", "the floor's append", partial(floor.append, "of 10", encoded[0])


def append_to(service: Any, session: Any, events: list[Any]) -> Call:
    """Return what appends the next event each time it is called, always under a new id."""
    numbers = iter(range(10**9))

    async def append() -> None:
        number = next(numbers)
        event = events[number % len(events)].model_copy(update={"id": f"again {number}"})
        await service.append_event(session, event)

    return append


async def timed(call: Call) -> dict[str, float]:
    """Measure batches of calls."""
    start = time.perf_counter()
    for _ in range(10):
        await call()
    times = max(5, int(10 * SECONDS / (time.perf_counter() - start)))
    clock, cpu = [], []
    gc.collect()
    for _ in range(BATCHES):
        began, used = time.perf_counter(), time.process_time()
        for _ in range(times):
            await call()
        clock.append(1e6 * (time.perf_counter() - began) / times)
        cpu.append(1e6 * (time.process_time() - used) / times)
    return {"clock": round(median(clock), 1), "cpu": round(median(cpu), 1)}
