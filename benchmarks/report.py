"""From measurements to a table: every goal with the number that was reached, met or not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import charts

DOCS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"

ORDER = ["redis", "postgres", "sqlite", "hybrid", "mongodb", "dynamodb", "gcs", "custom"]
"""The columns of the summary: those with goals of their own first."""

AGAINST_ADK = {"redis": 200, "postgres": 8, "sqlite": 5}
"""How many times faster than ADK's own an append to 1,000 events is meant to be."""


@dataclass
class Goal:
    """One line of the table."""

    what: str
    aim: str
    reached: str
    met: bool


class Numbers:
    """The measurements of one backend, found by what was done, by whom, and with how many."""

    def __init__(self, result: dict[str, Any]) -> None:
        """Index the series."""
        self.result, self.facts = result, result["facts"]
        self.medians = {(s["what"], s["who"], s["x"]): s["median"] for s in result["series"]}
        self.slopes = {(s["what"], s["who"]): s["slope"] for s in result["slopes"]}

    def lengths(self, what: str, who: str = "ours") -> list[int]:
        """Return with how many it was measured."""
        return sorted(x for (of, by, x) in self.medians if (of, by) == (what, who))

    def who(self, what: str) -> list[str]:
        """Return who took part, ours first and the floor last."""
        names = dict.fromkeys(by for (of, by, _) in self.medians if of == what)
        order = ["ours", *(name for name in names if name not in ("ours", "floor", "decoding"))]
        return [name for name in [*order, "decoding", "floor"] if name in names]

    def ratio(self, what: str, x: int, *, over: str = "floor", who: str = "ours") -> float | None:
        """Return how many times slower one is than another."""
        own, other = self.medians.get((what, who, x)), self.medians.get((what, over, x))
        return own / other if own and other else None


def adk(numbers: Numbers) -> list[str]:
    """Return ADK's own services that keep what they are given."""
    return [
        name for name in numbers.who("append") if name.endswith("Service") and "Memory" not in name
    ]


def goals(numbers: Numbers) -> Iterator[Goal]:
    """Yield what was aimed at and what was reached."""
    facts = numbers.facts
    lengths = numbers.lengths("append")
    yield from worst(numbers, "append", lengths, 1.5, "append, of the floor")
    shortest, longest = lengths[0], lengths[-1]
    flat = numbers.medians["append", "ours", longest] / numbers.medians["append", "ours", shortest]
    yield Goal(
        f"append at {longest:,} events, of that at {shortest}",
        "≤ 1.10 ×",
        f"{flat:.2f} ×",
        flat <= 1.1,
    )
    for name in adk(numbers):
        times = numbers.ratio("append", 1_000, over="ours", who=name)
        if times and (aim := AGAINST_ADK.get(numbers.result["backend"])):
            met = times >= aim
            yield Goal(
                f"append at 1,000 events, {name} over ours", f"≥ {aim} ×", f"{times:.0f} ×", met
            )
    for x in numbers.lengths("first read"):
        if ratio := numbers.ratio("first read", x, over="decoding"):
            yield ratio_goal(f"first read of {x:,} events, of decoding them", 1.2, ratio)
            yield from beside_a_round_trip(numbers, x)
    yield from worst(numbers, "next read", lengths, 2, "next read, of one round trip")
    for x in numbers.lengths("last 20"):
        if ratio := numbers.ratio("last 20", x):
            yield ratio_goal(f"last 20 of {x:,} events, of a round trip and decoding", 2, ratio)
    for x in numbers.lengths("list"):
        if ratio := numbers.ratio("list", x):
            yield ratio_goal(
                f"list 50 sessions beside {x:,} others, of a round trip and decoding", 2, ratio
            )
    rates = facts.get("appends a second, 32 writers", {})
    if "floor" in rates:
        share = rates["ours"] / rates["floor"]
        reached = f"{share:.0%} ({rates['ours']:,.0f} a second)"
        yield Goal("32 writers, of the floor's throughput", "≥ 60 %", reached, share >= 0.6)
    held = facts["warm bytes an event"]
    share = held["counted"] / held["held"]
    yield Goal(
        "memory of a warm event, counted of what it takes", "80–125 %",
        f"{share:.0%} ({held['held']:,} bytes)", 0.8 <= share <= 1.25,
    )  # fmt: skip
    for what, gap in facts["event loop blocked, ms"].items():
        reached = f"{gap['median']:.1f} ms (worst {gap['worst']:.1f})"
        if what != "nothing":
            yield Goal(f"event loop blocked by: {what}", "≤ 5 ms", reached, gap["median"] <= 5)
    yield at_most("import, beyond ADK's own", facts["import, ms"], 100, "ms")
    yield at_most("bake", facts["bake, s"], 1, "s")
    if "make demo, s" in facts:
        yield at_most("make demo", facts["make demo, s"], 5, "s")


def beside_a_round_trip(numbers: Numbers, x: int) -> Iterator[Goal]:
    """Yield the fairer ratio where the round trip alone takes more than the goal leaves for it."""
    trip = numbers.medians.get(("next read", "floor", x))
    ratio = numbers.ratio("first read", x)
    if trip and ratio and trip > 0.2 * numbers.medians["first read", "decoding", x]:
        yield ratio_goal(f"first read of {x:,} events, of getting and decoding them", 1.2, ratio)


def worst(numbers: Numbers, what: str, lengths: list[int], aim: float, name: str) -> Iterator[Goal]:
    """Yield the worst ratio to the floor over all lengths."""
    ratios = {x: ratio for x in lengths if (ratio := numbers.ratio(what, x))}
    if ratios:
        at = max(ratios, key=lambda x: ratios[x])
        yield ratio_goal(f"{name}, at worst (at {at:,} events)", aim, ratios[at])


def ratio_goal(what: str, aim: float, ratio: float) -> Goal:
    """Return a goal for a ratio."""
    return Goal(what, f"≤ {aim:g} ×", f"{ratio:.2f} ×", ratio <= aim)


def at_most(what: str, value: float, aim: float, unit: str) -> Goal:
    """Return a goal for a number."""
    return Goal(what, f"≤ {aim:g} {unit}", f"{value:g} {unit}", value <= aim)


def broken_ratios(result: dict[str, Any]) -> list[str]:
    """Return what must not be so on any machine, however slow or busy: each a sentence."""
    numbers = Numbers(result)
    sentences = []
    for what, most in (("append", 1.5), ("next read", 3.0)):
        lengths = numbers.lengths(what)
        short, long = (numbers.medians[what, "ours", x] for x in (lengths[0], lengths[-1]))
        if long > most * short:
            sentences.append(
                f"{what} is not flat: {long / short:.1f} times as long at {lengths[-1]:,} events"
                f" as at {lengths[0]}."
            )
        for name in adk(numbers):
            behind = numbers.ratio(what, 1_000, over=name)
            if behind and behind > 1:
                sentences.append(
                    f"{what} at 1,000 events takes {behind:.1f} times as long as {name}'s."
                )
    return sentences


def markdown(result: dict[str, Any]) -> str:
    """Return the page of a backend."""
    numbers = Numbers(result)
    machine, versions = result["machine"], result["versions"]
    facts = numbers.facts
    lines = [
        f"# {facts.get('server', result['backend'])}",
        "",
        f"{machine['began']}, {machine['system']}, {machine['processor']}, {machine['cores']} cores"
        f" (load before: {machine['load before']}), "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ". Medians of one run, all contestants in turn.",
        "",
    ]
    if "append is" in facts:
        lines += [
            f"The floor: an append is {facts['append is']}; a round trip is {facts['round trip is']}.",
            "",
        ]
    lines += ["| | aim | reached | |", "|---|---|---|---|"]
    lines += [
        f"| {goal.what} | {goal.aim} | {goal.reached} | {'yes' if goal.met else '**no**'} |"
        for goal in goals(numbers)
    ]
    for what, of in (
        ("append", "events"), ("first read", "events"), ("next read", "events"),
        ("every event", "events"), ("last 20", "events"), ("list", "other sessions"),
    ):  # fmt: skip
        lengths = sorted({x for (name, _, x) in numbers.medians if name == what})
        if lengths:
            lines += ["", *table(numbers, what, of, lengths)]
    if rates := facts.get("appends a second, 32 writers"):
        told = ", ".join(f"{who} {rate:,.0f}" for who, rate in rates.items())
        lines += ["", f"32 writers at once, appends a second: {told}."]
    if parts := facts.get("parts, µs"):
        lines += ["", *table_of_parts(parts)]
    if "stored bytes an event" in facts:
        lines += [
            "",
            f"An event of these conversations is {facts['payload bytes an event']:,} bytes of JSON and takes"
            f" {facts['stored bytes an event']:,} on the server.",
        ]
    return "\n".join(lines) + "\n"


def table(numbers: Numbers, what: str, of: str, lengths: list[int]) -> Iterator[str]:
    """Yield a table of medians and 99th percentiles in milliseconds, with how they grow."""
    series = {(s["who"], s["x"]): s for s in numbers.result["series"] if s["what"] == what}
    yield (
        f"| {what}, ms: median (p99) | "
        + " | ".join(f"{x:,} {of}" for x in lengths)
        + " | grows as |"
    )
    yield "|---|" + "---:|" * len(lengths) + "---|"
    for who in numbers.who(what):
        cells = []
        for x in lengths:
            one = series.get((who, x))
            cells.append(f"{ms(one['median'])} ({ms(one['p99'])})" if one else "")
        grows = numbers.slopes.get((what, who))
        yield (
            f"| {who} | "
            + " | ".join(cells)
            + (f" | n^{grows:.2f} |" if grows is not None else " | |")
        )


def table_of_parts(parts: list[dict[str, Any]]) -> Iterator[str]:
    """Yield where the time goes, in microseconds on the clock and of CPU."""
    yield "| alone, caches warm, µs | part | on the clock | CPU of the process |"
    yield "|---|---|---:|---:|"
    for one in parts:
        yield f"| {one['what']} | {one['part']} | {one['clock']:,.0f} | {one['cpu']:,.0f} |"


def ms(seconds: float) -> str:
    """Write milliseconds with three digits that count."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def write_results(result: dict[str, Any]) -> None:
    """Write JSON, page and charts of a backend."""
    name = result["backend"]
    DOCS.mkdir(parents=True, exist_ok=True)
    (DOCS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    charts.draw(Numbers(result).medians, name, result["facts"].get("server", name), DOCS)
    page = markdown(result)
    title, _, rest = page.partition("\n")
    (DOCS / f"{name}.md").write_text(f"{title}\n\n{charts.picture(name)}\n{rest}", "utf-8")


def write_summary() -> None:
    """Put the goals of all backends beside one another into the README of the results."""
    results = {path.stem: json.loads(path.read_text("utf-8")) for path in DOCS.glob("*.json")}
    backends = [name for name in ORDER if name in results]
    reached: dict[str, dict[str, str]] = {}
    for backend in backends:
        for goal in goals(Numbers(results[backend])):
            name = f"{re.sub(r', at worst .*', '', goal.what)} ({goal.aim})"
            text = goal.reached.partition(" (")[0]
            reached.setdefault(name, {})[backend] = text if goal.met else f"**{text}**"
    lines = [
        f"| goal | {' | '.join(f'[{name}]({name}.md)' for name in backends)} |",
        f"|---|{'---:|' * len(backends)}",
        *(
            f"| {goal} | {' | '.join(cells.get(name, '') for name in backends)} |"
            for goal, cells in reached.items()
        ),
    ]
    readme = DOCS / "README.md"
    before, begin, rest = readme.read_text("utf-8").partition("<!-- goals -->\n")
    _, end, after = rest.partition("<!-- end of goals -->\n")
    readme.write_text(f"{before}{begin}{chr(10).join(lines)}\n{end}{after}", "utf-8")


def main() -> None:
    """Write pages, charts and summary anew from the numbers that are there."""
    for path in sorted(DOCS.glob("*.json")):
        write_results(json.loads(path.read_text("utf-8")))
    write_summary()


if __name__ == "__main__":
    main()
