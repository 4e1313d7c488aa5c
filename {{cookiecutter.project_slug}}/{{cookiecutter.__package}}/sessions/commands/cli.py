"""`sessions init | list | show | delete | erase | check`, and the group of all `sessions` commands.

They work on every backend.
"""

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ..config import APP_NAME
from .common import (
    app_option,
    confirm,
    json_option,
    list_sessions,
    locate,
    run,
    uri_option,
    user_option,
    yes_option,
)
from .key_commands import keys, new_key_command, rotate
from .terminal import pluralize, print_table, printable, time_left, timestamp
from .transfer_commands import copy, export, import_command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.adk.events.event import Event

    from ..service import PersistentSessionService
    from ..session import PersistentSession

METADATA = "__session_metadata__"
"""The state key in which ADK's web interface keeps the name that a session was given there."""


@click.group(commands=[copy, export, import_command, keys, new_key_command, rotate])
def sessions() -> None:
    """List, show, export, import, copy, encrypt, delete, erase and check sessions.

    A session id can be shortened, as long as one session begins with it.
    """


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
        rows = [
            (
                session.id,
                session.user_id,
                session.revision,
                timestamp(session.last_update_time),
                time_left(session.expires_at),
                name_in(session.state),
            )
            for session in found
        ]
        columns = 6 if any(name for *_, name in rows) else 5
        headers = ("SESSION", "USER", "EVENTS", "LAST UPDATE", "EXPIRES", "NAME")
        print_table(headers[:columns], [row[:columns] for row in rows])
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
    session = run(uri, lambda service: locate(service, app, user, session_id, whole=True))
    if as_json:
        click.echo(json.dumps(as_data(session), indent=2))
        return
    click.echo(printable(outline(session)))
    if state := sorted((key, value) for key, value in session.state.items() if key != METADATA):
        click.echo()
        print_table(("STATE", "VALUE"), state)
    if session.events:
        click.echo()
        rows = [(timestamp(e.timestamp), e.author, describe(e)) for e in session.events]
        print_table(("TIME", "AUTHOR", "EVENT"), rows)


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

    async def find(service: "PersistentSessionService") -> "list[PersistentSession]":
        located = [await locate(service, app, user, session_id) for session_id in session_ids]
        return list({(each.user_id, each.id): each for each in located}.values())

    async def remove(service: "PersistentSessionService") -> None:
        for session in found:
            await service.delete_session(
                app_name=app, user_id=session.user_id, session_id=session.id
            )

    found = run(uri, find)
    for session in found:
        click.echo(printable(outline(session)), err=True)
    confirm(f"Delete {pluralize(len(found))} for good?", "Nothing was deleted.", yes=yes)
    run(uri, remove)
    click.echo(f"Deleted {pluralize(len(found))}.", err=True)


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
    counted = run(uri, lambda service: count(service, name, user))
    question = f"Erase {what} for good ({counted}, and what has expired)?"
    confirm(question, "Nothing was erased.", yes=yes)
    counted = run(uri, lambda service: count(service, name, user, erasing=True))
    click.echo(printable(f"Erased {what}: {counted}."), err=True)


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

    count, values, sessions = run(uri, lambda service: find_damage(service, app))
    if not values and not sessions:
        click.echo(f"Nothing is damaged in {pluralize(count)} of app {app!r}.", err=True)
        return
    rows = [(each.state_key or "unlisted", each.user_id or "", each.problem) for each in values]
    rows += [(f"session {key.session_id}", key.user_id, why) for key, why in sessions.items()]
    print_table(("DAMAGED", "USER", "PROBLEM"), rows)
    records = pluralize(len(rows), "damaged record")
    if not remove:
        raise click.ClickException(f"There are {records}; --remove removes them.")
    confirm(f"Remove {records} for good?", "Nothing was removed.", yes=yes)
    run(uri, lambda service: remove_damage(service, app, values, sessions))
    if not all(each.state_key for each in values):
        raise click.ClickException(
            "What is unlisted is left: use `sessions delete` with --user, or set the value anew."
        )
    click.echo(f"Removed {records}.", err=True)


async def count(
    service: "PersistentSessionService", app: str, user: str | None, *, erasing: bool = False
) -> str:
    """Return how much is stored of a user or of an app, and erase it if asked.

    Expired sessions are counted only when they are erased. The state of an app goes last.
    """
    from .sources import only

    users = sessions = values = 0
    async for each in service.store.users(app) if user is None else only(user):
        users += 1
        values += len(await service.store.user_state(app, each))
        if erasing:
            sessions += await service.erase(app_name=app, user_id=each)
        else:
            sessions += len(await list_sessions(service, app, each))
    if user is None:
        values += len(await service.store.app_state(app))
        if erasing:
            await service.erase(app_name=app, user_id=None)
    people = f"{pluralize(users, 'user')}, " if user is None else ""
    return f"{people}{pluralize(sessions)}, {pluralize(values, 'value')} of state"


def outline(session: "PersistentSession") -> str:
    """Return what people know a session by, on one line."""
    name = f" {name!r}" if (name := name_in(session.state)) else ""
    start = f"Session {session.id}{name} of user {session.user_id}"
    if not session.attached:
        return f"{start} cannot be read"
    events, updated = pluralize(session.revision, "event"), timestamp(session.last_update_time)
    return f"{start}: {events}, last update {updated}, expires: {time_left(session.expires_at)}"


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
        "name": name_in(session.state),
        "user": session.user_id,
        "app": session.app_name,
        "events": session.revision,
        "last_update_time": session.last_update_time,
        "ttl": session.ttl,
        "expires_at": session.expires_at,
    }


def name_in(state: "Mapping[str, Any]") -> str:
    """Return the name that a session was given in ADK's web interface, or an empty one."""
    metadata = state.get(METADATA)
    return str(metadata.get("displayName") or "") if isinstance(metadata, dict) else ""


def describe(event: "Event") -> str:
    """Return what an event says, in words or as a call of a tool, or else what it sets."""
    said = []
    as_json = partial(json.dumps, ensure_ascii=False, default=repr)
    for part in (event.content.parts if event.content else None) or []:
        if part.text:
            said.append(part.text)
        elif call := part.function_call:
            said.append(f"→ {call.name} {as_json(call.args)}")
        elif answer := part.function_response:
            said.append(f"← {answer.name} {as_json(answer.response)}")
        else:
            kinds = ", ".join(part.model_dump(exclude_none=True))
            said.append(f"({kinds or 'empty'})")
    if said or not event.actions.state_delta:
        return " ".join(said)
    name = name_in(event.actions.state_delta)
    return f"(renamed to {name!r})" if name else f"(sets {', '.join(event.actions.state_delta)})"
