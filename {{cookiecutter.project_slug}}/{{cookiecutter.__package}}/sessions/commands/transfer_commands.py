"""`sessions export | import | copy`: sessions leave and enter a store."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, TextIO

import click

from ..errors import CorruptSession, SessionStoreError
from .common import app_option, locate, run, uri_option, user_option
from .terminal import pluralize, printable

if TYPE_CHECKING:
    from ..service import PersistentSessionService
    from .transfer import Counts, Record

ttl_option = click.option("--ttl", help="Time to live of all sessions, instead of their own.")
verify_option = click.option("--verify", is_flag=True, help="Read what was written, and compare.")


@click.command()
@click.argument("session_ids", nargs=-1, metavar="[SESSION_ID]...")
@click.option("--all", "everything", is_flag=True, help="Export all sessions of the app.")
@user_option
@app_option
@uri_option
def export(
    uri: str | None, app: str, user: str | None, session_ids: tuple[str, ...], everything: bool
) -> None:
    """Write sessions to standard output, one line of JSON each: `export --all > sessions.jsonl`.

    The state that sessions share has lines of its own.
    """
    if everything and session_ids:
        raise click.UsageError("--all exports all sessions: leave it out, or the session ids.")
    if not everything and not session_ids:
        raise click.UsageError("Name the sessions to export, or give --all.")
    failed = run(uri, lambda service: export_lines(service, app, user, session_ids))
    if failed:
        raise click.ClickException(f"{failed} of the records could not be exported.")


@click.command("import")
@click.argument("file", type=click.File(encoding="utf-8"))
@ttl_option
@verify_option
@uri_option
def import_command(uri: str | None, file: TextIO, ttl: str | None, verify: bool) -> None:
    """Write the sessions and the state in FILE (`-` for standard input) to the store.

    FILE is from `export`, from the button of `adk web`, or from `adk run --save_session`. Sessions that are there
    already are skipped, and half-written ones are finished, so an interrupted import can be repeated.
    """
    from .transfer import read_lines

    write(uri, lambda: read_lines(file, file.name), ttl, verify)


@click.command()
@click.option("--from", "source", required=True, metavar="URI", help="Where to copy from.")
@click.option("--to", "uri", metavar="URI", help="Where to, instead of the configured store.")
@user_option
@app_option
@ttl_option
@verify_option
def copy(
    source: str, uri: str | None, app: str, user: str | None, ttl: str | None, verify: bool
) -> None:
    """Copy sessions and state from another session service.

    The source is one of this project, a session URI of ADK (sqlite:///file.db, postgresql+asyncpg://…,
    agentengine://…), or a service that ADK ships as a class: adk+redis://host:6379/0?key_prefix=…,
    adk+mongodb://host/database, adk+firestore://project/database. An interrupted copy can be repeated.
    """
    from .sources import open_source

    write(uri, lambda: open_source(source, app, user)(), ttl, verify)


async def export_lines(
    service: "PersistentSessionService", app: str, user: str | None, session_ids: Sequence[str]
) -> int:
    """Print records as lines of JSON, all of them if no id is given; return how many could not be.

    A record that is damaged does not keep the others from being saved.
    """
    from ..store import SessionKey
    from .sources import reader, shared_state, stored
    from .transfer import Found, Shared, Unreadable, shared_line, to_line

    async def chosen() -> "AsyncIterator[Record]":
        located = [await locate(service, app, user, session_id) for session_id in session_ids]
        keys = dict.fromkeys(SessionKey(app, each.user_id, each.id) for each in located)
        for owner in (None, *dict.fromkeys(key.user_id for key in keys)):
            for record in await shared_state(service.store, app, owner):
                yield record
        for key in keys:
            yield Found(key, reader(service.store, key))

    failed = 0
    async for record in chosen() if session_ids else stored(service.store, app, user):
        try:
            if isinstance(record, Shared):
                click.echo(shared_line(record))
            elif isinstance(record, Unreadable):
                raise CorruptSession(f"{record.name}: {record.problem}")
            elif content := await record.read():
                click.echo(to_line(record.key, content))
        except SessionStoreError as error:
            click.echo(f"Error: {printable(error)}", err=True)
            failed += 1
    return failed


def write(
    uri: str | None, records: "Callable[[], AsyncIterator[Record]]", ttl: str | None, verify: bool
) -> None:
    """Write records to the store of a URI, show the progress and the result."""
    from rich.console import Console

    from ..ttl import parse_ttl
    from .transfer import Target

    async def work(service: "PersistentSessionService") -> "Counts":
        seconds = None if ttl is None else parse_ttl(ttl)
        target = Target(service.store, default_ttl=service.ttl, ttl=seconds, verify=verify)
        with Console(stderr=True).status("0 sessions so far") as status:  # only on a terminal
            return await target.write(
                records(), lambda counts: status.update(f"{pluralize(counts.sessions)} so far")
            )

    counts = run(uri, work, reads=False)
    for problem in counts.problems:
        click.echo(f"Error: {printable(problem)}", err=True)
    click.echo(
        f"Copied {pluralize(counts.copied)}, skipped {counts.skipped} that were there already.",
        err=True,
    )
    if counts.problems:
        raise click.ClickException(
            f"{pluralize(len(counts.problems), 'record')} could not be read or written."
        )
