"""Charts as SVG, for light and for dark pages: milliseconds against the length of the session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .contestants import IN_MEMORY

THEMES = {
    "light": {"text": "#1f2328", "grid": "#d1d9e0", "ours": "#0969da", "other": "#bc4c00", "memory": "#8250df"},
    "dark": {"text": "#e6edf3", "grid": "#3d444d", "ours": "#4493f8", "other": "#f0883e", "memory": "#ab7df8"},
}  # fmt: skip

Medians = dict[tuple[str, str, int], float]


def draw(
    medians: Medians, panels: Sequence[tuple[str, str]], name: str, title: str, folder: Path
) -> None:
    """Draw what was measured, each in a panel with its heading, in both themes."""
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
    drawn = [(heading, lines) for what, heading in panels if (lines := lines_of(medians, what))]
    for theme, colours in THEMES.items():
        figure, row = plt.subplots(
            1, len(drawn), figsize=(6 * len(drawn), 4.6), layout="constrained", squeeze=False
        )
        figure.suptitle(
            f"{title}: milliseconds against events in the session", color=colours["text"]
        )
        for panel, (heading, lines) in zip(row[0], drawn, strict=True):
            last = max(x for points in lines.values() for x, _ in points)
            labels = spread({who: points[-1][1] for who, points in lines.items()}, lines)
            for who, points in lines.items():
                colour, style = look(who, colours)
                panel.plot(
                    *zip(*points, strict=True), marker="o", markersize=4, color=colour, **style
                )
                panel.annotate(
                    f"{short(who)}  {written(points[-1][1])} ms", (last, labels[who]), xytext=(8, 0),
                    textcoords="offset points", va="center", color=colour,
                    fontweight="bold" if who == "ours" else "normal", fontsize=11,
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


def lines_of(medians: Medians, what: str) -> dict[str, list[tuple[int, float]]]:
    """Return the lines of a panel: points of length and milliseconds, by who was measured."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for (of, who, x), seconds in sorted(medians.items(), key=lambda item: item[0][2]):
        if of == what:
            lines.setdefault(who, []).append((x, 1000 * seconds))
    return lines


def look(who: str, colours: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Return the colour and the style of a line: variants of ours are thin and dashed."""
    if who == "ours":
        return colours["ours"], {"linewidth": 2.6}
    if who.startswith("ours"):
        return colours["ours"], {"linewidth": 1.4, "linestyle": "--"}
    return colours["memory" if who == IN_MEMORY else "other"], {"linewidth": 1.8}


def short(who: str) -> str:
    """Return a name for a label."""
    return "InMemory (keeps nothing)" if who == IN_MEMORY else who


def written(value: float) -> str:
    """Write a number of milliseconds with two digits that count."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def spread(ends: dict[str, float], lines: dict[str, list[tuple[int, float]]]) -> dict[str, float]:
    """Return where labels stand that would otherwise cover each other, on a logarithmic axis."""
    values = [y for points in lines.values() for _, y in points]
    apart = (max(values) / min(values)) ** 0.065
    places: dict[str, float] = {}
    lowest = 0.0
    for who, end in sorted(ends.items(), key=lambda item: item[1]):
        lowest = places[who] = max(end, lowest * apart)
    return places


def picture(name: str, alternative: str) -> str:
    """Return the Markdown that shows a chart as the reader's page is: light or dark."""
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{name}-dark.svg">'
        f'<img alt="{alternative}" src="{name}-light.svg"></picture>\n'
    )
