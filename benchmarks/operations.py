"""Single operations: an append, a read, a list, and many writers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from .child import Child
from .projects import SLOW, Contestant, Project, rivals, serving, working
from .rounds import Cell, Form, Told, machine, measure, prepare

OURS, COLD, ENCRYPTED = "ours", "ours, cache_mb=0", "ours, encrypted"
IN_A_ROW = 5
FULL = Form((10, 100, 1_000, 10_000), rounds=25, budget=1.0, at_least=IN_A_ROW)
QUICK = Form((10, 100, 1_000), rounds=10, budget=0.5, at_least=IN_A_ROW)
OTHERS = (50, 2_000)
"""How many sessions of others there are beside those that are listed."""
REPEAT = 5
"""How often is measured what is measured apart."""


async def measure_operations(
    backend: str, project: Project, form: Form, told: Told
) -> dict[str, Any]:
    """Measure everything, part after part."""
    everybody = [
        Contestant(OURS, project),
        Contestant(COLD, project, {"cache_mb": 0}),
        Contestant(ENCRYPTED, project, encrypted=True),
        *rivals(backend, project),
    ]
    result: dict[str, Any] = {"backend": backend, "machine": machine(), "series": [], "facts": {}}
    async with (
        serving(backend, project) as uri,
        working(backend, everybody, {project.label: uri}) as workers,
    ):
        result |= await workers[OURS].call("about")
        cold, encrypted = workers.pop(COLD, None), workers.pop(ENCRYPTED)
        others = OTHERS[:1] if backend in SLOW else OTHERS
        run = Operations(workers, cold, encrypted, others, form, told, result)
        await run.appends()
        await run.reads()
        await run.lists()
        await run.writers()
        await run.blocking()
    return result


@dataclass
class Operations:
    """The contestants, and where the numbers go."""

    workers: dict[str, Child]
    cold: Child | None
    """Ours without a cache: a process that has not seen the session before."""
    encrypted: Child
    """Ours with SESSION_KEYS, which only appends."""
    others: Sequence[int]
    form: Form
    told: Told
    result: dict[str, Any]

    async def add(self, cells: Sequence[Cell]) -> None:
        """Measure some cells and keep what comes out."""
        self.result["series"] += await measure(cells, self.form, self.told, cells[0].what)

    async def appends(self) -> None:
        """Append to sessions of all lengths."""
        workers = self.workers | {ENCRYPTED: self.encrypted}
        await self.add(await prepare(workers, "append", self.form, self.told, IN_A_ROW))

    async def reads(self) -> None:
        """Read sessions of all lengths, whole and from the last 20 events on."""
        # The longest of ours is made alone, to see what it takes on the server.
        ours, longest = self.workers[OURS], max(self.form.lengths)
        before = await ours.call("stored_bytes")
        await prepare({OURS: ours}, "read", replace(self.form, lengths=(longest,)), self.told)
        after = await ours.call("stored_bytes")
        if after is not None:
            self.result["facts"]["stored bytes an event"] = round((after - before) / longest)
        cells = await prepare(self.workers, "read", self.form, self.told, IN_A_ROW)
        if self.cold:
            cells += await prepare({COLD: self.cold}, "read", self.form, self.told, IN_A_ROW)
        await self.add(cells)
        await self.add(
            [Cell(c.worker, c.who, "last 20", c.x, IN_A_ROW) for c in cells if c.x >= 100]
        )

    async def lists(self) -> None:
        """List the sessions of a user, while others have many."""
        made = 0
        for others in self.others:
            cells = []
            for who, worker in self.workers.items():
                self.told(f"list: making sessions of {who}", 0, 1)
                before = await worker.call("stored_bytes")
                await worker.call("prepare_list", first=made, last=others)
                after = await worker.call("stored_bytes")
                cells.append(Cell(worker, who, "list", others, IN_A_ROW))
                if who == OURS and after is not None:
                    stored = round((after - before) / (others - made))
                    self.result["facts"]["stored bytes a session"] = stored
            made = others
            await self.add(cells)

    async def writers(self) -> None:
        """Let 32 tasks append at once, each to its own session, each contestant in turn."""
        rates: dict[str, list[float]] = {}
        for number in range(REPEAT):
            self.told("writers", number, REPEAT)
            for who, worker in self.workers.items():
                rates.setdefault(who, []).append(await worker.call("writers", seconds=1))
        medians = {who: median(found) for who, found in rates.items()}
        self.result["facts"]["appends a second, 32 writers"] = medians

    async def blocking(self) -> None:
        """See for how long other tasks wait while the longest session is read."""
        longest = max(self.form.lengths)
        readers = {"read": self.workers[OURS]} | ({"first read": self.cold} if self.cold else {})
        gaps = {}
        for name, worker in readers.items():
            self.told(f"event loop: {name}", 0, 1)
            worst = await worker.call("blocked", what="read", x=longest, times=REPEAT)
            gaps[f"{name} of {longest:,} events"] = 1000 * median(worst)
        self.result["facts"]["event loop blocked, ms"] = gaps
