"""`sessions init | list | show | export | import | copy | delete | erase | check`: manage stored sessions.

This works on every backend.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

import click

from .. import create_session_service
from ..config import APP_NAME
from ..errors import CorruptSession, SessionStoreError
from .terminal import Progress, print_table, printable, time_left

if TYPE_CHECKING:
    from google.adk.events.event import Event

    from ..service import PersistentSessionService
    from ..session import PersistentSession
    from .transfer import Record

T = TypeVar("T")

uri_option = click.option(
    "--uri", help="Session URI, instead of SESSION_SERVICE_URI, .env or the project's default."
)
app_option = click.option(
    "--app", default=APP_NAME, show_default=True, help="Name of the app whose sessions are meant."
)
user_option = click.option("--user", help="Only sessions of this user.")
ttl_option = click.option("--ttl", help="Time to live of all sessions, instead of their own.")
verify_option = click.option(
    "--verify", is_flag=True, help="Read what was written again, and compare it."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def sessions() -> None:
    """List, show, export, import, copy, encrypt, delete, erase and check sessions."""


@sessions.command()
@uri_option
def init(uri: str | None) -> None:
    """Create what the first session needs, such as a table. Repeating it does no harm."""

    async def prepare(service: "PersistentSessionService") -> str:
        await service.prepare()
        return service.description

    click.echo(f"Ready: {run(uri, prepare, reads=False)}", err=True)


@sessions.command("list")
@user_option
@app_option
@uri_option
@json_option
def list_command(uri: str | None, app: str, user: str | None, as_json: bool) -> None:
    """List the sessions, the most recently used last."""
    found = run(uri, lambda service: list_sessions(service, app, user))
    if as_json:
        click.echo(json.dumps([summary(session) for session in found], indent=2))
    elif found:
        print_table(
            ("SESSION", "USER", "EVENTS", "LAST EVENT", "EXPIRES IN"),
            [
                (
                    session.id,
                    session.user_id,
                    session.revision,
                    timestamp(session.last_update_time),
                    time_left(session.expires_at),
                )
                for session in found
            ],
        )
    else:
        of = f" of user {user!r}" if user is not None else ""
        click.echo(f"There are no sessions{of} in app {app!r}.", err=True)


@sessions.command()
@click.argument("session_id")
@user_option
@app_option
@uri_option
@json_option
def show(uri: str | None, app: str, user: str | None, session_id: str, as_json: bool) -> None:
    """Show a session: its state and what was said."""
    session = run(uri, lambda service: find(service, app, user, session_id))
    if as_json:
        click.echo(json.dumps(as_data(session), indent=2))
        return
    click.echo(f"Session {printable(session.id)} of user {printable(session.user_id)}")
    click.echo(f"{session.revision} events, expires in: {time_left(session.expires_at)}\n")
    if session.state:
        print_table(("STATE", "VALUE"), sorted(session.state.items()))
        click.echo()
    if session.events:
        rows = [(timestamp(e.timestamp), e.author, describe(e)) for e in session.events]
        print_table(("TIME", "AUTHOR", "EVENT"), rows)


@sessions.command()
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
    if bool(session_ids) == everything:
        raise click.UsageError("Name the sessions to export, or give --all.")
    failed = run(uri, lambda service: export_lines(service, app, user, session_ids))
    if failed:
        raise click.ClickException(f"{failed} of the records could not be exported.")


@sessions.command("import")
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


@sessions.command()
@click.option(
    "--from", "source", required=True, metavar="URI", help="Where sessions are copied from."
)
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

    try:
        records = open_source(source, app, user)
    except SessionStoreError as error:
        raise click.ClickException(printable(error)) from error
    write(uri, records, ttl, verify)


@sessions.command()
@click.argument("session_ids", nargs=-1, required=True, metavar="SESSION_ID...")
@yes_option
@user_option
@app_option
@uri_option
def delete(
    uri: str | None, app: str, user: str | None, session_ids: tuple[str, ...], yes: bool
) -> None:
    """Delete sessions with their events. State of their users and of the app stays."""
    if not yes and not click.confirm(f"Delete {pluralize(len(session_ids))} for good?", err=True):
        raise click.ClickException("Nothing was deleted.")

    async def remove(service: "PersistentSessionService") -> None:
        owners = [await owner_of(service, app, user, session_id) for session_id in session_ids]
        for owner, session_id in zip(owners, session_ids, strict=True):
            with suppress(CorruptSession):  # what cannot be read can be deleted
                await find(service, app, owner, session_id)
        for owner, session_id in zip(owners, session_ids, strict=True):
            await service.delete_session(app_name=app, user_id=owner, session_id=session_id)

    run(uri, remove)
    click.echo(f"Deleted {pluralize(len(session_ids))}.", err=True)


@sessions.command()
@yes_option
@click.option("--user", help="The user to erase.")
@click.option("--app", help="The app of the user, or the app to erase with all its users.")
@uri_option
def erase(uri: str | None, app: str | None, user: str | None, yes: bool) -> None:
    """Remove all that is stored of a user: sessions, live or expired, and state.

    `--app` without `--user` removes all users of an app, and its state. The README says what the database itself
    keeps for its recovery, and for how long.
    """
    if user is None and app is None:
        raise click.UsageError("Name the user to erase with --user, or a whole app with --app.")
    name = APP_NAME if app is None else app
    what = f"user {user!r} in app {name!r}" if user is not None else f"app {name!r}"
    users, sessions, values = run(uri, lambda service: count(service, name, user))
    counted = f"{pluralize(sessions)}, {pluralize(values, 'value')} of state"
    if user is None:
        counted = f"{pluralize(users, 'user')}, {counted}"
    question = f"Erase {printable(what)} for good ({counted}, and what has expired)?"
    if not yes and not click.confirm(question, err=True):
        raise click.ClickException("Nothing was erased.")
    removed = run(uri, lambda service: erase_all(service, name, user))
    click.echo(
        f"Erased {printable(what)}: {pluralize(removed)}, {pluralize(values, 'value')} of state.",
        err=True,
    )


@sessions.command()
@click.option("--remove", is_flag=True, help="Remove what is damaged.")
@yes_option
@app_option
@uri_option
def check(uri: str | None, app: str, remove: bool, yes: bool) -> None:
    """Show the sessions, and the values of `user:` and `app:` state, that cannot be read.

    --remove deletes these sessions and sets these values to null. Exit status 1 says that something is damaged.
    """
    from .check import find_damage, remove_damage

    report = run(uri, lambda service: find_damage(service, app))
    damaged = report.damaged
    if not damaged and not report.omitted:
        click.echo(f"Nothing is damaged in {pluralize(report.sessions)} of app {app!r}.", err=True)
        return
    rows = [("unlisted", "", text) for text in report.omitted]
    for damage in damaged:
        what = damage.state_key or f"session {damage.session_id}"
        rows.append((what, damage.user_id or "", damage.problem))
    print_table(("DAMAGED", "USER", "PROBLEM"), rows)
    records = f"{len(rows)} damaged record{'' if len(rows) == 1 else 's'}"
    if not remove:
        raise click.ClickException(f"There are {records}; --remove removes them.")
    if not yes and not click.confirm(f"Remove {records} for good?", err=True):
        raise click.ClickException("Nothing was removed.")
    run(uri, lambda service: remove_damage(service, damaged))
    if report.omitted:
        raise click.ClickException(
            "What is unlisted is left: use `sessions delete` with --user, or set the value anew."
        )
    click.echo(f"Removed {records}.", err=True)


def run(
    uri: str | None,
    work: "Callable[[PersistentSessionService], Awaitable[T]]",
    *,
    reads: bool = True,
) -> T:
    """Return what `work` makes of the session service of a URI; errors end in one sentence.

    A command that only `reads` does not create a database that is missing.
    """

    async def use() -> T:
        async with create_session_service(uri) as service:
            if reads and (missing := await service.store.missing()):
                raise click.ClickException(f"{missing}: it is created with the first session.")
            return await work(service)

    try:
        return asyncio.run(use())
    except (SessionStoreError, ValueError) as error:
        raise click.ClickException(printable(error)) from error


async def list_sessions(
    service: "PersistentSessionService", app: str, user: str | None
) -> "list[PersistentSession]":
    """Return the sessions of an app or of one of its users, without events."""
    from ..session import PersistentSession

    listed = await service.list_sessions(app_name=app, user_id=user)
    return [session for session in listed.sessions if isinstance(session, PersistentSession)]


async def find(
    service: "PersistentSessionService", app: str, user: str | None, session_id: str
) -> "PersistentSession":
    """Return the session of that id."""
    from google.adk.sessions.base_session_service import GetSessionConfig

    owner = await owner_of(service, app, user, session_id)
    session = await service.get_session(
        app_name=app, user_id=owner, session_id=session_id, config=GetSessionConfig()
    )
    return session or no_session(app, session_id)


async def owner_of(
    service: "PersistentSessionService", app: str, user: str | None, session_id: str
) -> str:
    """Return the given user, else the one who has the session; ids are unique only below their user."""
    if user is not None:
        return user
    listed = await list_sessions(service, app, None)
    users = [session.user_id for session in listed if session.id == session_id]
    if len(users) > 1:
        names = ", ".join(repr(name) for name in users)
        raise click.ClickException(
            f"More than one user has session {session_id!r}; pass --user (one of {names})."
        )
    return users[0] if users else no_session(app, session_id)


def no_session(app: str, session_id: str) -> NoReturn:
    """Say that there is no such session."""
    raise click.ClickException(
        f"There is no session {session_id!r} in app {app!r}: it was deleted, or it has expired."
    )


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
        owners = [await owner_of(service, app, user, session_id) for session_id in session_ids]
        for owner in (None, *dict.fromkeys(owners)):
            for record in await shared_state(service.store, app, owner):
                yield record
        for owner, session_id in zip(owners, session_ids, strict=True):
            key = SessionKey(app, owner, session_id)
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
            elif session_ids:
                no_session(app, record.key.session_id)
        except (SessionStoreError, click.ClickException) as error:
            click.echo(f"Error: {printable(error)}", err=True)
            failed += 1
    return failed


def write(
    uri: str | None, records: "Callable[[], AsyncIterator[Record]]", ttl: str | None, verify: bool
) -> None:
    """Write records to the store of a URI, show the progress and the result."""
    from ..ttl import parse_ttl
    from .transfer import Counts, Target

    async def work(service: "PersistentSessionService") -> "Counts":
        seconds = None if ttl is None else parse_ttl(ttl)
        target = Target(service.store, default_ttl=service.ttl, ttl=seconds, verify=verify)
        with Progress() as progress:
            return await target.write(records(), lambda counts: progress.show(counts.sessions))

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


async def users_of(
    service: "PersistentSessionService", app: str, user: str | None
) -> "AsyncIterator[str]":
    """Yield the given user, or all users of the app."""
    if user is not None:
        yield user
    else:
        async for each in service.store.users(app):
            yield each


async def count(
    service: "PersistentSessionService", app: str, user: str | None
) -> tuple[int, int, int]:
    """Return the numbers of users, live sessions and values of state."""
    users = sessions = values = 0
    if user is None:
        values = len(await service.store.app_state(app))
    async for each in users_of(service, app, user):
        users += 1
        sessions += len(await list_sessions(service, app, each))
        values += len(await service.store.user_state(app, each))
    return users, sessions, values


async def erase_all(service: "PersistentSessionService", app: str, user: str | None) -> int:
    """Erase a user, or all users of an app and then its state. Return the number of sessions."""
    removed = 0
    async for each in users_of(service, app, user):
        removed += await service.erase(app_name=app, user_id=each)
    if user is None:
        await service.erase(app_name=app, user_id=None)
    return removed


def as_data(session: "PersistentSession") -> dict[str, Any]:
    """Return what `show --json` says of a session."""
    from ..codec import encode_state
    from .transfer import encode

    return {
        "app": session.app_name,
        "user": session.user_id,
        "id": session.id,
        "ttl": session.ttl,
        "last_update_time": session.last_update_time,
        "state": {key: json.loads(data) for key, data in encode_state(session.state).items()},
        "events": [json.loads(encode(event)) for event in session.events],
    }


def summary(session: "PersistentSession") -> dict[str, Any]:
    """Return what `list --json` says of a session. Times are epoch seconds."""
    return {
        "id": session.id,
        "user": session.user_id,
        "app": session.app_name,
        "events": session.revision,
        "last_update_time": session.last_update_time,
        "ttl": session.ttl,
        "expires_at": session.expires_at,
    }


def describe(event: "Event") -> str:
    """Return what an event says, in words or as a call of a tool."""
    said = []
    for part in (event.content.parts if event.content else None) or []:
        if part.text:
            said.append(part.text)
        elif part.function_call:
            arguments = json.dumps(part.function_call.args, ensure_ascii=False, default=repr)
            said.append(f"→ {part.function_call.name} {arguments}")
        elif part.function_response:
            result = json.dumps(part.function_response.response, ensure_ascii=False, default=repr)
            said.append(f"← {part.function_response.name} {result}")
        else:
            kinds = ", ".join(part.model_dump(exclude_none=True))
            said.append(f"({kinds or 'empty'})")
    return " ".join(said)


def timestamp(seconds: float) -> str:
    """Return a moment as people read it, in local time; events may claim any time."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def pluralize(number: int, what: str = "session") -> str:
    """Return `1 session`, `2 sessions`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


from . import key_commands  # noqa: E402, F401  (adds its commands to the group)
