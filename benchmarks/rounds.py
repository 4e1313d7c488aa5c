"""Fair measuring on a machine that has other things to do.

All cells of a table are measured in rounds, each round in another order, so that whatever slows the
machine down for a while slows everybody down. What counts is the median, and what is compared are
medians of one run.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import linear_regression, median, quantiles
from typing import Any

Call = Callable[[], Awaitable[object]]
Told = Callable[[str, int, int], None]
"""Hears how far it is: what is measured, rounds done, rounds in all."""


@dataclass
class Cell:
    """One number to be found: what is done, by whom, with how many events or sessions."""

    what: str
    who: str
    x: int
    call: Call
    before: Call | None = None
    """What must be done before each call, and is not measured."""
    seconds: list[float] = field(default_factory=list)
    spent: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Return what is kept of the measurement."""
        return {
            "what": self.what,
            "who": self.who,
            "x": self.x,
            "times": len(self.seconds),
            "median": median(self.seconds),
            "p99": percentile(self.seconds, 99),
        }


async def measure(
    cells: Sequence[Cell], *, rounds: int, budget: float, told: Told, at_least: int = 5
) -> list[dict[str, Any]]:
    """Measure all cells in rounds; one that has used its budget of seconds sits out the rest."""
    dice = random.Random(0)
    for number in range(-1, rounds):
        told(cells[0].what, number + 1, rounds)
        for cell in dice.sample(cells, len(cells)):
            if cell.spent > budget and len(cell.seconds) >= at_least:
                continue
            if cell.before:
                await cell.before()
            start = time.perf_counter()
            await cell.call()
            end = time.perf_counter()
            cell.spent += end - start
            if number >= 0:  # the first round warms up
                cell.seconds.append(end - start)
    return [cell.summary() for cell in cells]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that so many percent of the values do not exceed."""
    if len(values) == 1:
        return values[0]
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the exponent b of y = a · x^b, fitted: 0 is flat, 1 grows with the length, 2 with its square."""
    if len({x for x, _ in points}) < 2:
        return None
    xs, ys = zip(*((math.log(x), math.log(y)) for x, y in points), strict=True)
    return linear_regression(xs, ys).slope
