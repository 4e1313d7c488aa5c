"""What the `sessions` commands share: options, the session service, questions, and short session ids."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from .. import create_session_service
from ..config import APP_NAME
from ..errors import CorruptSession, SessionStoreError
from .terminal import printable

if TYPE_CHECKING:
    from ..service import PersistentSessionService
    from ..session import PersistentSession

T = TypeVar("T")

CANDIDATES = 10
"""Sessions that a message about an ambiguous id names at most."""

uri_option = click.option("--uri", help="Session URI, instead of the configured one.")
app_option = click.option("--app", default=APP_NAME, show_default=True, help="App of the sessions.")
user_option = click.option("--user", help="Only sessions of this user.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


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


def confirm(question: str, otherwise: str, *, yes: bool) -> None:
    """Ask, and end the command with a sentence unless the answer is yes. Nobody is asked if `yes` is set."""
    try:
        agreed = yes or click.confirm(printable(question), err=True)
    except click.Abort:  # the end of the input, or Ctrl-C
        click.echo(err=True)
        agreed = False
    if not agreed:
        raise click.ClickException(otherwise)


async def list_sessions(
    service: "PersistentSessionService", app: str, user: str | None
) -> "list[PersistentSession]":
    """Return the sessions of an app or of one of its users, without events."""
    from ..session import PersistentSession

    listed = await service.list_sessions(app_name=app, user_id=user)
    return [session for session in listed.sessions if isinstance(session, PersistentSession)]


async def locate(
    service: "PersistentSessionService",
    app: str,
    user: str | None,
    text: str,
    *,
    whole: bool = False,
) -> "PersistentSession":
    """Return the session with that id, or else the only one whose id begins with it.

    It has no events unless it is read as a `whole`, and is not attached if it cannot be read.

    Raises:
        CorruptSession: it cannot be read as a whole.
        ClickException: there is no such session, or more than one.
    """
    from google.adk.sessions.base_session_service import GetSessionConfig

    from ..session import PersistentSession

    if user is not None:
        wanted = GetSessionConfig(num_recent_events=None if whole else 0)
        try:
            exact = await service.get_session(
                app_name=app, user_id=user, session_id=text, config=wanted
            )
        except CorruptSession:
            if whole:
                raise
            exact = PersistentSession(app_name=app, user_id=user, id=text)
        if exact:
            return exact
    listed = await list_sessions(service, app, user)
    listed = [session for session in listed if (session.user_id, session.id) != (user, text)]
    found = [session for session in listed if session.id == text] or [
        session for session in listed if text and session.id.startswith(text)
    ]
    if not found:
        whose, other = ("", "") if user is None else (f" of user {user!r}", "user (--user) or ")
        raise click.ClickException(
            f"There is no session {text!r}{whose} in app {app!r}: it was deleted, has expired,"
            f" or belongs to another {other}app (--app)."
        )
    if len(found) > 1:
        names = ", ".join(f"{each.id!r} of user {each.user_id!r}" for each in found[:CANDIDATES])
        raise click.ClickException(
            f"{len(found)} sessions match {text!r}, such as {names}:"
            " write more of the id, or pass --user."
        )
    return await locate(service, app, found[0].user_id, found[0].id, whole=whole)
