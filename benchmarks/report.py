"""From measurements to pages: tables, charts, and every goal with the number that was reached."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from . import charts
from .contestants import IN_MEMORY
from .rounds import slope

DOCS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"

ORDER = ["redis", "postgres", "sqlite", "hybrid", "mongodb", "dynamodb", "gcs", "custom"]
"""The rows and columns of the summary: real servers first."""

LOOPBACK, AWAY = "loopback", "1 ms away"
NETWORKS = {LOOPBACK: "on loopback", AWAY: "1 ms away"}
AS_IN_MEMORY = {"redis", "postgres", "sqlite"}
"""Where a turn is meant to take hardly longer than with the service that keeps nothing."""


@dataclass
class Goal:
    """One line of the table: a number that should be small."""

    what: str
    value: float
    aim: float
    limit: float = math.inf
    """More than this is wrong on any machine, however slow or busy."""
    unit: str = "×"

    def __str__(self) -> str:
        """Write the number that was reached."""
        text = f"{self.value:.{2 if self.unit == '×' else 1}f} {self.unit}"
        return text if self.value <= self.aim else f"**{text}**"


class Numbers:
    """The measurements of one run, found by what was done, by whom, and with how many."""

    def __init__(self, result: dict[str, Any]) -> None:
        """Index the series."""
        self.backend = result["backend"]
        self.series = {(s["what"], s["who"], s["x"]): s for s in result["series"]}
        self.medians = {key: one["median"] for key, one in self.series.items()}

    def lengths(self, what: str) -> list[int]:
        """Return with how many it was measured."""
        return sorted({x for (of, _, x) in self.medians if of == what})

    def who(self, what: str) -> list[str]:
        """Return who took part, ADK's services last."""
        names = dict.fromkeys(by for (of, by, _) in self.medians if of == what)
        return sorted(names, key=lambda name: (name.endswith("Service"), name == IN_MEMORY))

    def ratio(self, what: str, who: str, x: int, over: str, at: int | None = None) -> float | None:
        """Return how many times longer one takes than another, or than itself at another length."""
        one = self.medians.get((what, who, x))
        other = self.medians.get((what, over, at or x))
        return one / other if one and other else None

    def grows(self, what: str, who: str) -> str:
        """Return how a cost grows, if it was measured at several lengths."""
        points = [
            (x, seconds) for (of, by, x), seconds in self.medians.items() if (of, by) == (what, who)
        ]
        exponent = slope(points)
        return "" if exponent is None else f"n^{exponent:.2f}"


def turn_goals(result: dict[str, Any]) -> Iterator[Goal]:
    """Yield what was aimed at with whole turns, and what was reached."""
    numbers = Numbers(result)
    for x in numbers.lengths(LOOPBACK):
        ratio = numbers.ratio(LOOPBACK, "ours", x, IN_MEMORY)
        if ratio and x <= 1_000 and result["backend"] in AS_IN_MEMORY:
            yield Goal(f"turn at {x:,} events, of {IN_MEMORY}'s", ratio, 1.1)
    for network, where in NETWORKS.items():
        yield from beside_adk(numbers, network, f"turn {where}")
    last, longest = "ours, last 50 events", numbers.lengths(LOOPBACK)[-1]
    ratio = numbers.ratio(LOOPBACK, last, longest, last, 100)
    if ratio and longest > 100:
        yield Goal(
            f"turn that reads 50 of {longest:,} events, of one that reads 50 of 100", ratio, 1.2
        )


def operation_goals(result: dict[str, Any]) -> Iterator[Goal]:
    """Yield what was aimed at with single operations, and what was reached."""
    numbers = Numbers(result)
    yield from flat(numbers, "append", "ours", "at", 1.5)
    ratios = [
        ratio
        for x in numbers.lengths("append")
        if (ratio := numbers.ratio("append", "ours, encrypted", x, "ours"))
    ]
    if ratios:  # an append costs the same at all lengths
        mean = geometric_mean(ratios)
        yield Goal("append with encryption, of that without (mean of all lengths)", mean, 1.15)
    for who in [name for name in numbers.who("last 20") if name.startswith("ours")]:
        yield from flat(numbers, "last 20", who, "of", 1.5)
    yield from flat(numbers, "list", "ours", "beside")
    for what in ("append", "read"):
        yield from beside_adk(numbers, what, what)
    for what, gap in result["facts"]["event loop blocked, ms"].items():
        yield Goal(f"event loop blocked by: {what}", gap, 5, unit="ms")


def flat(numbers: Numbers, what: str, who: str, of: str, limit: float = math.inf) -> Iterator[Goal]:
    """Yield the most beside the least, of what should not grow."""
    lengths = numbers.lengths(what)
    ratio = numbers.ratio(what, who, lengths[-1], who, lengths[0])
    if ratio and len(lengths) > 1:
        name = f"{what} {of} {lengths[-1]:,}, of that {of} {lengths[0]:,} ({who})"
        yield Goal(name, ratio, 1.2, limit)


def beside_adk(numbers: Numbers, what: str, name: str) -> Iterator[Goal]:
    """Yield ours beside each of ADK's own that keeps what it is given."""
    for rival in numbers.who(what):
        ratio = numbers.ratio(what, "ours", 1_000, rival)
        if ratio and rival.endswith("Service") and rival != IN_MEMORY:
            yield Goal(f"{name} at 1,000 events, of {rival}'s", ratio, 1, 1)


def turn_tables(result: dict[str, Any]) -> str:
    """Return the tables of whole turns, as Markdown."""
    numbers = Numbers(result)
    lines: list[str] = []
    times = [one["times"] for one in result["series"]]
    for network, where in NETWORKS.items():
        lines += table(numbers, network, f"a whole turn {where}, ms: median (p99)", clock)
    lines += [f"Each is of {min(times)} to {max(times)} turns.", ""]
    lines += table(numbers, LOOPBACK, "CPU of the process, ms a turn", lambda one: ms(one["cpu"]))
    lines += table(numbers, AWAY, "sent and received, a turn", traffic)
    memory = {who: mb for who, mb in result["memory, MB"].items() if mb}
    if memory:
        told = ", ".join(f"{who} {mb:.0f} MB" for who, mb in memory.items())
        lines += [f"Memory of each process in the end, ADK and Python included: {told}.", ""]
    return "\n".join(lines)


def table(
    numbers: Numbers,
    what: str,
    head: str,
    cell: Callable[[dict[str, Any]], str],
    of: str = "events",
) -> Iterator[str]:
    """Yield a table, if there are numbers for it: a row for each contestant."""
    lengths = numbers.lengths(what)
    if not lengths:
        return
    timed = cell is clock
    yield f"| {head} | {' | '.join(f'{x:,} {of}' for x in lengths)} |{' grows as |' * timed}"
    yield f"|---|{'---:|' * len(lengths)}{'---|' * timed}"
    for who in numbers.who(what):
        found = [numbers.series.get((what, who, x)) for x in lengths]
        cells = [cell(one) if one else "" for one in found]
        yield f"| {who} | {' | '.join(cells)} |{f' {numbers.grows(what, who)} |' * timed}"
    yield ""


def clock(one: dict[str, Any]) -> str:
    """Write what something took: the median, and the 99th percentile."""
    return f"{ms(one['median'])} ({ms(one['p99'])})"


def traffic(one: dict[str, Any]) -> str:
    """Write what passed between a process and its server."""
    amount = one["bytes"]
    size = f"{amount / 1e6:.1f} MB" if amount >= 1e6 else f"{amount / 1e3:.1f} KB"
    return f"{one['requests']:.0f} requests, {size}"


def ms(seconds: float) -> str:
    """Write milliseconds with three digits that count."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def page(turns: dict[str, Any] | None, operations: dict[str, Any] | None) -> str:
    """Return the page of a backend: whole turns first, then what they are made of."""
    latest = turns or operations
    assert latest
    name = latest["backend"]
    lines = [f"# {latest['server']}", ""]
    if turns:
        lines += [
            charts.picture(f"turns-{name}", f"Milliseconds of a whole turn, {name}"),
            measured_on(turns),
            *goal_table(list(turn_goals(turns))),
            turn_tables(turns),
        ]
    if operations:
        lines += ["## Single operations", "", charts.picture(name, f"An append and a read, {name}")]
        lines += [measured_on(operations), *goal_table(list(operation_goals(operations)))]
        lines += operation_tables(operations)
    return "\n".join(lines).rstrip() + "\n"


def measured_on(result: dict[str, Any]) -> str:
    """Return the line that says when, where and with what."""
    machine, versions = result["machine"], result["versions"]
    return (
        f"{machine['began']}, {machine['system']}, {machine['processor']}, {machine['cores']} cores"
        f" (load before: {machine['load before']}), "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".\n"
    )


def goal_table(goals: Sequence[Goal]) -> Iterator[str]:
    """Yield the goals as a table."""
    if goals:
        yield "| | at most | reached |"
        yield "|---|---:|---:|"
        for goal in goals:
            yield f"| {goal.what} | {goal.aim:g} {goal.unit} | {goal} |"
        yield ""


def operation_tables(result: dict[str, Any]) -> Iterator[str]:
    """Yield the tables of single operations."""
    numbers, facts = Numbers(result), result["facts"]
    for what, of in (
        ("append", "events"), ("read", "events"), ("last 20", "events"), ("list", "other sessions"),
    ):  # fmt: skip
        yield from table(numbers, what, f"{what}, ms: median (p99)", clock, of)
    told = ", ".join(
        f"{who} {rate:,.0f}" for who, rate in facts["appends a second, 32 writers"].items()
    )
    yield f"32 writers at once, appends a second: {told}."
    if "stored bytes an event" in facts:
        yield ""
        yield (
            f"An event of these conversations takes {facts['stored bytes an event']:,} bytes on the"
            f" server, a session without events {facts['stored bytes a session']:,}."
        )


def load(name: str) -> dict[str, Any] | None:
    """Return what was written of a run, if there is any."""
    path = DOCS / f"{name}.json"
    result: dict[str, Any] | None = json.loads(path.read_text("utf-8")) if path.exists() else None
    return result


def publish(turns: dict[str, Any], operations: dict[str, Any]) -> None:
    """Keep the numbers of a backend and write its page anew."""
    name = turns["backend"]
    DOCS.mkdir(parents=True, exist_ok=True)
    for stem, result in ((f"turns-{name}", turns), (name, operations)):
        (DOCS / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    write(name)
    write_summary()


def write(name: str) -> None:
    """Write page and charts of a backend from the numbers that are there."""
    turns, operations = load(f"turns-{name}"), load(name)
    if turns:
        panels = [(network, f"A whole turn {where}") for network, where in NETWORKS.items()]
        charts.draw(Numbers(turns).medians, panels, f"turns-{name}", turns["server"], DOCS)
    if operations:
        panels = [("append", "Append one event"), ("read", "Read the whole session")]
        charts.draw(Numbers(operations).medians, panels, name, operations["server"], DOCS)
    (DOCS / f"{name}.md").write_text(page(turns, operations), "utf-8")


def write_summary() -> None:
    """Put the turns and the goals of all backends into the README of the results."""
    names = [name for name in ORDER if load(f"turns-{name}")]
    turns = {name: load(f"turns-{name}") or {} for name in names}
    operations = {name: load(name) or {} for name in names}
    readme = DOCS / "README.md"
    text = readme.read_text("utf-8")
    text = with_region(text, "turns", turn_summary(turns))
    text = with_region(text, "goals", goal_summary(turns, operations))
    readme.write_text(text, "utf-8")


def turn_summary(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield what a whole turn takes, for all backends."""
    for network, where in NETWORKS.items():
        found = {name: Numbers(result) for name, result in results.items()}
        lengths = sorted({x for numbers in found.values() for x in numbers.lengths(network)})
        yield (
            f"| a whole turn {where}, ms | | " + " | ".join(f"{x:,} events" for x in lengths) + " |"
        )
        yield "|---|---|" + "---:|" * len(lengths)
        for name, numbers in found.items():
            for who in numbers.who(network):
                medians = [numbers.medians.get((network, who, x)) for x in lengths]
                cells = [ms(one) if one else "" for one in medians]
                yield f"| [{name}]({name}.md) | {who} | {' | '.join(cells)} |"
        yield ""


def goal_summary(
    turns: dict[str, dict[str, Any]], operations: dict[str, dict[str, Any]]
) -> Iterator[str]:
    """Yield every goal, with what each backend reached."""
    reached: dict[str, dict[str, str]] = {}
    for name in turns:
        for goal in [*turn_goals(turns[name]), *operation_goals(operations[name])]:
            line = f"{goal.what} (≤ {goal.aim:g} {goal.unit})"
            reached.setdefault(line, {})[name] = str(goal)
    yield f"| goal | {' | '.join(f'[{name}]({name}.md)' for name in turns)} |"
    yield f"|---|{'---:|' * len(turns)}"
    for goal_name, cells in reached.items():
        yield f"| {goal_name} | {' | '.join(cells.get(name, '') for name in turns)} |"


def with_region(text: str, name: str, lines: Iterator[str]) -> str:
    """Return a text with what stands between two comments replaced."""
    before, begin, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->\n")
    return f"{before}{begin}{chr(10).join(lines)}\n{end}{after}"


def main() -> None:
    """Write pages, charts and summary anew from the numbers that are there."""
    for name in ORDER:
        if load(f"turns-{name}"):
            write(name)
    write_summary()


if __name__ == "__main__":
    main()
