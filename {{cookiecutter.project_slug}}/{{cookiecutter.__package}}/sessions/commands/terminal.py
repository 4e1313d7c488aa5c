"""Output of our commands: tables on a terminal, plain lines into a pipe."""

import io
import sys
import time
from collections.abc import Iterable, Sequence

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


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, or into a pipe lines with tabs between the cells."""
    if not sys.stdout.isatty():
        for row in (headers, *rows):
            click.echo("\t".join(printable(cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)
