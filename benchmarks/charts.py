"""Charts as SVG, for light and for dark pages: append and read against the length of the session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

THEMES = {
    "light": {"text": "#1f2328", "grid": "#d1d9e0", "ours": "#0969da", "floor": "#818b98", "other": "#bc4c00", "memory": "#8250df"},
    "dark": {"text": "#e6edf3", "grid": "#3d444d", "ours": "#4493f8", "floor": "#9198a1", "other": "#f0883e", "memory": "#ab7df8"},
}  # fmt: skip
PANELS = (("append", "Append one event"), ("next read", "Read the session at the start of a turn"))
NAMES = {"floor": "floor: one round trip", "InMemorySessionService": "InMemory (keeps nothing)"}


def draw(medians: dict[tuple[str, str, int], float], name: str, title: str, folder: Path) -> None:
    """Draw both panels in both themes."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullLocator

    # Text stays text, in the reader's own font; the same numbers give the same file.
    mpl.rcParams |= {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 12,
    }
    for theme, colours in THEMES.items():
        figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
        figure.suptitle(
            f"{title}: milliseconds against events in the session", color=colours["text"]
        )
        for panel, (what, heading) in zip(axes, PANELS, strict=True):
            lines = series(medians, what)
            for who, points in lines.items():
                kind = {"ours": "ours", "floor": "floor", "InMemorySessionService": "memory"}.get(
                    who, "other"
                )
                style: dict[str, Any] = {
                    "color": colours[kind],
                    "linewidth": 2.6 if who == "ours" else 1.8,
                }
                if who == "floor":
                    style["linestyle"] = "--"
                panel.plot(*zip(*points, strict=True), marker="o", markersize=4, **style)
            ends = {who: points[-1][1] for who, points in lines.items()}
            drawn = [y for points in lines.values() for _, y in points]
            for who, at in spread(ends, drawn).items():
                kind = {"ours": "ours", "floor": "floor", "InMemorySessionService": "memory"}.get(
                    who, "other"
                )
                last = max(x for points in lines.values() for x, _ in points)
                label = NAMES.get(who, who) + f"  {written(lines[who][-1][1])} ms"
                panel.annotate(
                    label, (last, at), xytext=(8, 0), textcoords="offset points", va="center",
                    color=colours[kind], fontweight="bold" if who == "ours" else "normal", fontsize=11,
                )  # fmt: skip
            panel.set(xscale="log", yscale="log")
            panel.set_title(heading, loc="left", color=colours["text"], fontsize=12)
            panel.grid(color=colours["grid"], linewidth=0.6)
            panel.tick_params(colors=colours["text"], length=0)
            panel.xaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_minor_locator(NullLocator())
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            for spine in panel.spines.values():
                spine.set_visible(False)
        figure.savefig(folder / f"{name}-{theme}.svg", transparent=True, metadata={"Date": None})
        plt.close(figure)


def series(
    medians: dict[tuple[str, str, int], float], what: str
) -> dict[str, list[tuple[int, float]]]:
    """Return the lines of a panel: points of length and milliseconds, by who was measured."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for (of, who, x), seconds in sorted(medians.items(), key=lambda item: item[0][2]):
        if of == what:
            lines.setdefault(who, []).append((x, 1000 * seconds))
    return lines


def written(value: float) -> str:
    """Write a number of milliseconds with two digits that count."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def spread(ends: dict[str, float], values: Sequence[float]) -> dict[str, float]:
    """Return where labels stand that would otherwise cover each other, on a logarithmic axis."""
    apart = (max(values) / min(values)) ** 0.065
    places: dict[str, float] = {}
    lowest = 0.0
    for who, end in sorted(ends.items(), key=lambda item: item[1]):
        lowest = places[who] = max(end, lowest * apart)
    return places


def picture(name: str, path: str = "") -> str:
    """Return the Markdown that shows a chart as the reader's page is: light or dark."""
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{path}{name}-dark.svg">'
        f'<img alt="Milliseconds of an append and of a read against the length of the session, {name}"'
        f' src="{path}{name}-light.svg"></picture>\n'
    )
