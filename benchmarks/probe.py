"""What is measured. The Python of a baked project runs this, in the project's folder.

Progress and the result go to standard output, one JSON document a line.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.contestants import Floor, Rival
from benchmarks.parts import measure_parts
from benchmarks.rounds import Cell, measure, slope

APP, WRITER, LISTER = "bench", "writer", "lister"
LENGTHS = {
    "quick": (10, 1_000),
    "full": (10, 100, 1_000, 10_000),
    "long": (10, 100, 1_000, 10_000),
}
OTHERS = {"quick": (50, 2_000), "full": (50, 2_000, 200_000), "long": (50, 2_000, 200_000)}
EFFORT = {"quick": (60, 1.5), "full": (120, 1.0), "long": (400, 10.0)}
"""Rounds, and after how many seconds a cell sits out the rest of them."""
LISTED, RECENT, RECENT_OF = 50, 20, 5_000
WRITERS = 32
REPORTS = os.fdopen(os.dup(1), "w", encoding="utf-8")
"""Where reports go: no server that is started here holds this end of the pipe, should this process die."""
SLOW = {"mongodb", "dynamodb", "gcs"}
"""What stands in for these in the tests takes many milliseconds: shorter sessions, fewer of them."""


class Probe:
    """The contestants on one server, and what they are asked to do."""

    def __init__(self, backend: str, form: str, uri: str, folder: Path) -> None:
        """Take the project's own code from the folder that this runs in."""
        self.backend, self.form, self.uri, self.folder = backend, form, uri, folder
        self.quick = form == "quick"
        self.bench = importlib.import_module("tests.bench")
        self.sessions = importlib.import_module("my_agent.sessions")
        self.codec = importlib.import_module("my_agent.sessions.codec")
        self.lengths = LENGTHS[form]
        self.others = OTHERS[form]
        self.rounds, self.budget = EFFORT[form]
        self.slow = backend in SLOW
        if self.slow:
            self.lengths = tuple(length for length in self.lengths if length <= 1_000)
            self.others = self.others[:1]
            self.rounds //= 4
        self.few = self.quick or self.slow
        self.floor: Floor | None = None
        self.rivals: list[Rival] = []
        self.series: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}

    @asynccontextmanager
    async def contestants(self) -> AsyncIterator[None]:
        """Open everybody."""
        from google.adk.sessions.in_memory_session_service import InMemorySessionService

        self.ours = self.sessions.create_session_service(self.uri)
        self.cold = self.sessions.create_session_service(self.uri, cache_mb=0)
        memory = InMemorySessionService()

        async def fill(session: Any, events: Sequence[Any]) -> None:
            stored = memory.sessions[session.app_name][session.user_id][session.id]
            stored.events.extend(events)

        self.rivals = [Rival("ours", self.ours), Rival("InMemorySessionService", memory, fill)]
        if module := contestants_of(self.backend):
            self.floor = await module.open_floor(self.uri, self.folder)
            self.rivals += await module.open_rivals(self.uri, self.folder)
            self.facts["server"] = await self.floor.version()
            self.facts["append is"] = self.floor.append_is
            self.facts["round trip is"] = self.floor.round_trip_is
        await self.ours.check()
        try:
            yield
        finally:
            await self.cold.close()
            await self.ours.close()
            for rival in self.rivals:
                if close := getattr(rival.service, "close", None):
                    await close()
            if self.floor:
                await self.floor.close()

    async def run(self) -> dict[str, Any]:
        """Measure everything, part after part."""
        async with self.contestants():
            parts = [self.fill, self.appends, self.reads, self.recent, self.lists, self.writers]
            for part in [*parts, self.memory, self.blocking, self.parts, self.imports]:
                tell(part.__name__, 0, 1)
                await part()
        return {
            "backend": self.backend,
            "form": self.form,
            "versions": versions(),
            "facts": self.facts,
            "series": self.series,
            "slopes": slopes(self.series),
        }

    async def add(self, cells: list[Cell], **more: Any) -> None:
        """Measure some cells and keep what comes out."""
        limits = {"rounds": self.rounds, "budget": self.budget} | more
        self.series += await measure(cells, told=tell, **limits)

    def name(self, session_id: str, user_id: str = WRITER) -> dict[str, str]:
        """Return how a session is called."""
        return {"app_name": APP, "user_id": user_id, "session_id": session_id}

    def encoded(self, events: int, seed: int = 0) -> list[bytes]:
        """Return events as the project stores them."""
        conversation = islice(self.bench.conversation(seed), events)
        return [self.codec.encode_event(event, event.actions.state_delta) for event in conversation]

    async def fill(self) -> None:
        """Make the sessions that are read later, and see what the longest takes on the server."""
        longest = max(self.lengths)
        self.records = self.encoded(max(longest, 0 if self.quick else RECENT_OF))
        payload = sum(map(len, self.records[:longest]))
        self.facts["payload bytes an event"] = round(payload / longest)
        for done, length in enumerate(sorted(self.lengths, reverse=True)):
            tell("fill", done, len(self.lengths))
            before = await self.floor.stored_bytes() if self.floor else 0
            for rival in self.rivals:
                if not self.too_slow(rival, length):
                    await rival.session(
                        self.name(f"of {length}"), length, self.bench.conversation()
                    )
                if rival.who == "ours" and self.floor and length == longest:
                    stored = await self.floor.stored_bytes() - before
                    self.facts["stored bytes an event"] = round(stored / longest)
            if self.floor:
                await self.floor.put(f"of {length}", self.records[:length])

    def too_slow(self, rival: Rival, length: int) -> bool:
        """Tell whether making a session of this length takes longer than it is worth."""
        return (
            rival.fill is None
            and length > 1_000
            and rival.who not in ("ours", "InMemorySessionService")
        )

    async def appends(self) -> None:
        """Append to sessions of all lengths."""
        cells = []
        for length in self.lengths:
            for rival in self.rivals:
                if not self.too_slow(rival, length):
                    cells.append(await self.append_cell(rival, length))
            if self.floor:
                records = iter(self.encoded(self.rounds + 2, seed=1))
                session = f"append {length}"
                await self.floor.put(session, self.records[:length])
                call = partial(append_next, self.floor, session, records)
                cells.append(Cell("append", "floor", length, call))
        await self.add(cells)

    async def append_cell(self, rival: Rival, length: int) -> Cell:
        """Return appends to sessions none of which grows by more than a tenth, or three.

        All are made beforehand: who has just filled a session finds caches warm and the server awake.
        """
        events = max(3, length // 10)
        calls: list[Callable[[], Awaitable[object]]] = []
        conversation = self.bench.conversation(seed=1)
        for number in range(math.ceil((self.rounds + 1) / events)):
            name = self.name(f"append {length} {number}")
            session = await rival.session(name, length, self.bench.conversation(seed=2))
            calls += [
                partial(rival.service.append_event, session, next(conversation))
                for _ in range(events)
            ]
        left = iter(calls)

        async def call() -> None:
            await next(left)()

        return Cell("append", rival.who, length, call)

    async def reads(self) -> None:
        """Read sessions of all lengths: for the first time, and again."""
        cells = []
        for length in self.lengths:
            name, records = self.name(f"of {length}"), self.records[:length]
            cells.append(Cell("first read", "ours", length, partial(self.cold.get_session, **name)))
            cells.append(Cell("first read", "decoding", length, partial(self.decode, records)))
            cells.append(Cell("next read", "ours", length, partial(self.ours.get_session, **name)))
            cells.append(Cell("every event", "ours", length, partial(self.read_all, name)))
            if self.floor:
                trip = partial(self.floor.round_trip, f"of {length}")
                cells.append(Cell("next read", "floor", length, trip))
                cells.append(
                    Cell("first read", "floor", length, partial(self.fetch, f"of {length}", length))
                )
            for rival in self.rivals[1:]:
                if not self.too_slow(rival, length):
                    read = partial(rival.service.get_session, **name)
                    cells.append(Cell("next read", rival.who, length, read))
        with no_full_collections():
            await self.add(cells)

    async def decode(self, records: list[bytes]) -> Any:
        """Decode events once."""
        from google.adk.events.event import Event

        return [Event.model_validate_json(record) for record in records]

    async def fetch(self, session: str, last: int) -> Any:
        """Get events from the floor and decode them."""
        assert self.floor
        return await self.decode(list(await self.floor.read(session, last)))

    async def read_all(self, name: dict[str, str]) -> int:
        """Read a warm session and look at every event of it, as ADK's flows do."""
        session = await self.ours.get_session(**name)
        return sum(event.timestamp > 0 for event in session.events)

    async def recent(self) -> None:
        """Read the last events of a long session."""
        from google.adk.sessions.base_session_service import GetSessionConfig

        length = min(RECENT_OF, max(self.lengths))
        name, config = self.name(f"recent of {length}"), GetSessionConfig(num_recent_events=RECENT)
        cells = []
        for rival in self.rivals:
            if not self.too_slow(rival, length):
                await rival.session(name, length, self.bench.conversation())
                service = self.cold if rival.who == "ours" else rival.service
                read = partial(service.get_session, **name, config=config)
                cells.append(Cell("last 20", rival.who, length, read))
        if self.floor:
            await self.floor.put(name["session_id"], self.records[:length])
            cells.append(
                Cell("last 20", "floor", length, partial(self.fetch, name["session_id"], RECENT))
            )
        with no_full_collections():
            await self.add(cells)

    async def lists(self) -> None:
        """List the sessions of a user, while others have many."""
        state = {"topic": "orders", "seen": 7, "last_search": {"id": 1, "title": "the order"}}
        for rival in self.rivals:
            for number in range(LISTED):
                name = self.name(f"listed {number}", LISTER)
                await rival.service.create_session(**name, state=state)
        if self.floor:
            head = (await self.ours.get_session(**self.name("listed 0", LISTER))).model_dump_json()
            await self.floor.put("listed", [head.encode()] * LISTED)
        made = 0
        for others in self.others:
            rivals = [r for r in self.rivals if others <= 2_000 or r.who == "ours"]
            for rival in rivals:
                first = made if rival.who == "ours" else min(made, 2_000)
                before = await self.floor.stored_bytes() if self.floor else 0
                await self.populate(rival, first, others)
                if self.floor and rival.who == "ours" and others > first:
                    stored = await self.floor.stored_bytes() - before
                    self.facts["stored bytes a session"] = round(stored / (others - first))
            made = others
            cells = [
                Cell(
                    "list",
                    r.who,
                    others,
                    partial(r.service.list_sessions, app_name=APP, user_id=LISTER),
                )
                for r in rivals
            ]
            if self.floor:
                cells.append(Cell("list", "floor", others, self.list_floor))
            with no_full_collections():
                await self.add(cells, rounds=min(self.rounds, 100))

    async def list_floor(self) -> Any:
        """Get as many records as are listed in one round trip and decode them."""
        from google.adk.sessions.session import Session

        assert self.floor
        records = await self.floor.read("listed", LISTED)
        return [Session.model_validate_json(record) for record in records]

    async def populate(self, rival: Rival, first: int, last: int) -> None:
        """Give other users sessions, several at a time."""
        numbers = iter(range(first, last))

        async def create() -> None:
            for number in numbers:
                if number % 500 == 0:
                    tell(f"populating {rival.who}", number, last)
                await rival.service.create_session(app_name=APP, user_id=f"other {number // 10}")

        await asyncio.gather(*(create() for _ in range(WRITERS)))

    async def writers(self) -> None:
        """Let 32 tasks append at once, each to its own session, each contestant in turn.

        The events are made beforehand and hold no images, for the services as for the floor.
        """
        seconds, turns = (1.0, 3) if self.few else (1.5, 5)
        rates: dict[str, list[float]] = {}
        for turn in range(turns):
            for rival in self.rivals:
                tell("writers", turn, turns)
                sessions = [
                    await rival.session(
                        self.name(f"at once {turn} {n}"), 10, self.bench.conversation(n)
                    )
                    for n in range(WRITERS)
                ]
                spoken = (
                    e for e in self.bench.conversation(1) if not e.content.parts[-1].inline_data
                )
                made = list(islice(spoken, 400))
                calls = [
                    partial(append_event, rival.service, session, renamed(made, n))
                    for n, session in enumerate(sessions)
                ]
                rates.setdefault(rival.who, []).append(await throughput(calls, seconds))
            if self.floor:
                encoded = [record for record in self.encoded(400, seed=1) if len(record) < 50_000]
                for n in range(WRITERS):
                    await self.floor.put(f"at once {turn} {n}", encoded[:10])
                calls = [
                    partial(append_next, self.floor, f"at once {turn} {n}", cycle(encoded))
                    for n in range(WRITERS)
                ]
                rates.setdefault("floor", []).append(await throughput(calls, seconds))
        self.facts["appends a second, 32 writers"] = {
            who: median(all_) for who, all_ in rates.items()
        }

    async def memory(self) -> None:
        """Compare what the warm logs say that they hold with what Python says."""
        warm = importlib.import_module("my_agent.sessions.warm")
        decoding = importlib.import_module("my_agent.sessions.decoding")
        store = importlib.import_module("my_agent.sessions.store")
        records = [record for record in self.records[:2_000] if len(record) < 50_000]
        stored = [store.StoredEvent(n, 0.0, record) for n, record in enumerate(records, 1)]
        await decoding.decode_events(stored[:10])
        log = warm.EventLog("mark")
        gc.collect()
        tracemalloc.start()
        log.extend(0, await decoding.decode_events(stored))
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        self.facts["warm bytes an event"] = {
            "held": round(held / len(stored)),
            "counted": round(log.size / len(stored)),
        }

    async def blocking(self) -> None:
        """See for how long other tasks wait while sessions are read and written."""
        longest = max(self.lengths)
        name, listed = (
            self.name(f"of {longest}"),
            partial(self.ours.list_sessions, app_name=APP, user_id=LISTER),
        )
        session = await self.ours.get_session(**self.name(f"of {min(self.lengths)}"))
        image = next(e for e in self.bench.conversation() if e.content.parts[-1].inline_data)
        times = 3 if self.few else 10
        calls = {
            "nothing": partial(asyncio.sleep, 0.2),
            f"first read of {longest:,}": partial(self.cold.get_session, **name),
            f"next read of {longest:,}": partial(self.ours.get_session, **name),
            f"list of {LISTED}": listed,
            "append of an image": partial(self.ours.append_event, session, image),
        }
        for rival in self.rivals:  # in real life it would not be here
            if rival.who == "InMemorySessionService":
                rival.service.sessions.clear()
        self.records.clear()
        gc.collect()
        gaps = {what: await blocked(call, times) for what, call in calls.items()}
        self.facts["event loop blocked, ms"] = gaps

    async def parts(self) -> None:
        """See where the time of each operation goes."""
        self.facts["parts, µs"] = await measure_parts(self)

    async def imports(self) -> None:
        """Measure in new processes what the package adds to importing ADK."""
        script = (
            "import time; from google.adk.agents import Agent; from google.adk.runners import Runner\n"
            "start = time.perf_counter(); import my_agent.sessions.registration as registration\n"
            "loaded = time.perf_counter(); registration.build_service({!r})\n"
            "print(loaded - start, time.perf_counter() - loaded)"
        )
        times = []
        for number in range(repeat := 3 if self.few else 11):
            tell("imports", number, repeat)
            process = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", script.format(self.uri)],
                capture_output=True,
                text=True,
                check=True,
            )
            times.append([1000 * float(seconds) for seconds in process.stdout.split()])
        package, driver = zip(*times, strict=True)
        self.facts["import, ms"] = round(median(package), 1)
        self.facts["import of the driver, on first use, ms"] = round(median(driver), 1)


def contestants_of(backend: str) -> Any:
    """Return the module of a backend, if somebody has written one."""
    name = f"benchmarks.contestants.{backend}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


async def append_next(floor: Floor, session: str, records: Iterator[bytes]) -> None:
    """Append the next record."""
    await floor.append(session, next(records))


def renamed(events: list[Any], writer: int) -> Iterator[Any]:
    """Yield the events again and again, each time under a new id."""
    for number, event in enumerate(cycle(events)):
        yield event.model_copy(update={"id": f"{writer}-{number}"})


async def append_event(service: Any, session: Any, events: Iterator[Any]) -> None:
    """Append the next event."""
    await service.append_event(session, next(events))


async def throughput(calls: list[Any], seconds: float) -> float:
    """Return how many calls a second get done when all are repeated at once."""
    done = 0
    start = time.perf_counter()

    async def repeat(call: Any) -> None:
        nonlocal done
        while time.perf_counter() < start + seconds:
            await call()
            done += 1

    await asyncio.gather(*(repeat(call) for call in calls))
    return done / (time.perf_counter() - start)


async def blocked(call: Any, times: int) -> dict[str, float]:
    """Return how long a ticking task had to wait for its next turn while calls were made."""
    gaps: list[float] = []

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticker = asyncio.create_task(tick())
    worst = []
    for _ in range(times):
        await asyncio.sleep(0)
        gaps.clear()
        found = await call()
        await asyncio.sleep(0)
        worst.append(max(gaps))
        del found  # what it takes to forget a million objects is not the call's
    ticker.cancel()
    return {"median": round(1000 * median(worst), 2), "worst": round(1000 * max(worst), 2)}


@contextmanager
def no_full_collections() -> Iterator[None]:
    """Spare everybody what the garbage collector would take to look at what the others hold."""
    gc.collect()
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, 1_000_000)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)


def slopes(series: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fit how each cost grows."""
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for one in series:
        if one["x"]:
            groups.setdefault((one["what"], one["who"]), []).append((one["x"], one["median"]))
    return [
        {"what": what, "who": who, "slope": round(fitted, 3)}
        for (what, who), points in groups.items()
        if (fitted := slope(points)) is not None
    ]


def versions() -> dict[str, str]:
    """Return what was installed, as far as it matters."""
    found = {"python": platform.python_version()}
    for name in (
        "google-adk",
        "pydantic",
        "redis",
        "asyncpg",
        "pymongo",
        "aiobotocore",
        "sqlalchemy",
    ):
        try:
            found[name] = version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def tell(what: str, done: int, of: int) -> None:
    """Say how far it is."""
    say({"what": what, "done": done, "of": of})


def say(message: dict[str, Any]) -> None:
    """Write a line for whoever started this."""
    print(json.dumps(message), file=REPORTS, flush=True)


def main() -> None:
    """Start the project's test server and measure on it."""
    os.dup2(2, 1)
    parser = argparse.ArgumentParser()
    parser.add_argument("backend")
    parser.add_argument("form", choices=list(LENGTHS))
    arguments = parser.parse_args()
    servers = importlib.import_module("tests.servers")
    module = contestants_of(arguments.backend)
    settings = getattr(module, "SERVER", {})
    with (
        TemporaryDirectory(dir=Path.cwd()) as folder,
        servers.backend.serve(Path(folder), servers.SCHEME, **settings) as uri,
    ):
        probe = Probe(arguments.backend, arguments.form, uri, Path(folder))
        say({"result": asyncio.run(probe.run())})


if __name__ == "__main__":
    main()
