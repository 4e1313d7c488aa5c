"""Output of our commands: tables on a terminal, plain lines into a pipe."""

import io
import sys
import time
from collections.abc import Iterable, Sequence

import click

PROGRESS_EVERY = {True: 0.2, False: 10.0}
"""Seconds between two counts, on a terminal and elsewhere."""


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


class Progress:
    """Shows on a terminal how many sessions are done, or a line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + PROGRESS_EVERY[self._terminal]

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            click.echo("\r\x1b[K", nl=False, err=True)

    def show(self, sessions: int) -> None:
        """Show the number, unless one was shown a moment ago."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PROGRESS_EVERY[self._terminal]
        start = "\r" if self._terminal else ""
        click.echo(f"{start}{sessions} sessions so far", nl=not self._terminal, err=True)


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
