"""Fair measuring on a machine that has other things to do.

Everything is measured in rounds, each in another order, so that whatever slows the machine down for a
while slows everybody down. One contestant works at a time; the others wait. What counts is the median,
and what is compared are medians of one run.
"""

from __future__ import annotations

import asyncio
import datetime
import math
import os
import platform
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from statistics import linear_regression, median, quantiles
from typing import Any

from rich.console import Console
from rich.progress import Progress

from .child import Child

Told = Callable[[str, int, int], None]
"""Hears how far it is: what is done, steps done, steps in all."""


@dataclass
class Form:
    """How thorough a run is."""

    lengths: tuple[int, ...]
    """Events that sessions have had."""
    rounds: int
    budget: float
    """Seconds after which a cell sits out the rest of the rounds."""
    at_least: int
    """Calls of a cell, whatever they take."""

    def short(self, longest: int) -> Form:
        """Return less, for a server that takes many milliseconds for a call."""
        lengths = tuple(length for length in self.lengths if length <= longest)
        return replace(self, lengths=lengths, rounds=max(3, self.rounds // 4))


@dataclass
class Cell:
    """One number to be found: what is done, by whom, with how many events or sessions."""

    worker: Child
    who: str
    what: str
    x: int
    times: int = 1
    """Calls in a row: a process that was just woken is slow at what takes a fraction of a millisecond."""
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)

    async def measure(self, proxy: Child | None) -> None:
        """Measure once more; the proxy, if there is one on the way, counts what passes."""
        before = await proxy.call("counts") if proxy else {}
        found = await self.worker.call("measure", what=self.what, x=self.x, times=self.times)
        self.seconds += found["seconds"]
        self.cpu += found["cpu"]
        if proxy:
            after = await proxy.call("counts")
            self.requests.append((after["requests"] - before["requests"]) / self.times)
            self.bytes.append((after["bytes"] - before["bytes"]) / self.times)

    def summary(self) -> dict[str, Any]:
        """Return what is kept of the measurement, times in seconds."""
        found: dict[str, Any] = {
            "who": self.who,
            "x": self.x,
            "times": len(self.seconds),
            "median": median(self.seconds),
            "p99": percentile(self.seconds, 99),
            "cpu": median(self.cpu),
        }
        if self.requests:
            found |= {"requests": median(self.requests), "bytes": median(self.bytes)}
        return found


async def prepare(
    workers: dict[str, Child], what: str, form: Form, told: Told, in_a_row: int = 1
) -> list[Cell]:
    """Have everybody's sessions made, everybody's at the same time; return what can be measured then."""
    done, cells = 0, []

    async def make(who: str, worker: Child) -> None:
        nonlocal done
        for x in form.lengths:
            calls = form.rounds * in_a_row
            await worker.call(f"prepare_{what}", events=x, calls=calls)
            cells.append(Cell(worker, who, what, x, in_a_row))
            done += 1
            told(f"{what}: making sessions", done, len(workers) * len(form.lengths))

    await asyncio.gather(*(make(who, worker) for who, worker in workers.items()))
    order = list(workers)
    return sorted(cells, key=lambda cell: (order.index(cell.who), cell.x))


async def measure(
    cells: Sequence[Cell], form: Form, told: Told, name: str, proxy: Child | None = None
) -> list[dict[str, Any]]:
    """Measure all cells in rounds, and return what was found under a name."""
    dice = random.Random(0)
    ordered = sorted(cells, key=lambda cell: cell.who)
    workers = [list(group) for _, group in groupby(ordered, key=lambda cell: cell.who)]
    for number in range(form.rounds):
        told(name, number, form.rounds)
        for group in dice.sample(workers, len(workers)):
            for cell in dice.sample(group, len(group)):
                if len(cell.seconds) < form.at_least or sum(cell.seconds) < form.budget:
                    await cell.measure(proxy)
    return [{"what": name} | cell.summary() for cell in cells]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that so many percent of the values do not exceed."""
    if len(values) == 1:
        return values[0]
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the exponent b of y = a · x^b, fitted: 0 is flat, 1 grows with the length."""
    if len({x for x, _ in points}) < 2:
        return None
    xs, ys = zip(*((math.log(x), math.log(y)) for x, y in points), strict=True)
    return linear_regression(xs, ys).slope


@contextmanager
def progress(console: Console) -> Iterator[Told]:
    """Show how far it is; the value is what to tell it."""
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=of)


def machine() -> dict[str, Any]:
    """Return what is measured on, and when."""
    return {
        "began": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "system": platform.system(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
