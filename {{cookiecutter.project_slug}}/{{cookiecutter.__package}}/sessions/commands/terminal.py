"""Output of our commands: tables on a terminal, plain lines into a pipe."""

import io
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime

import click


def print_anything() -> None:
    """Escape letters that an output stream lacks. Pipes on Windows lack most."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: object) -> str:
    """Return a text on one line, with unprintable characters escaped.

    Ids and messages come from users and may have escape sequences, newlines or lone surrogates.
    """
    folded = " ".join(str(text).split())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in folded)


def timestamp(seconds: float) -> str:
    """Return a moment as people read it, in local time; events may claim any time."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def time_left(expires_at: float | None) -> str:
    """Return the time until a session expires in its two largest units: `23h 59m`."""
    if expires_at is None:
        return "never"
    left = max(0, int(expires_at - time.time()))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def pluralize(number: int, what: str = "session") -> str:
    """Return `1 session`, `2 sessions`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, or into a pipe lines with tabs between the cells.

    Long lines are left to the terminal: what is copied from it, such as an id, has no line breaks of ours.
    """
    table = [[printable(cell) for cell in row] for row in (headers, *rows)]
    if not sys.stdout.isatty():
        for row in table:
            click.echo("\t".join(row))
        return
    from rich.cells import cell_len, set_cell_size

    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = map(set_cell_size, row, widths)
        click.echo("  ".join(cells).rstrip())
