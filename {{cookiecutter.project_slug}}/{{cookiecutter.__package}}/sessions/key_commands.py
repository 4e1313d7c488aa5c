"""`sessions new-key | keys | rotate`: the keys of encrypted sessions."""

from typing import TYPE_CHECKING

import click

from .cli import app_option, run, sessions, uri_option
from .keys import new_key
from .terminal import print_table

if TYPE_CHECKING:
    from .rotation import Survey
    from .service import PersistentSessionService


@sessions.command("new-key")
def new_key_command() -> None:
    """Print a new key for SESSION_KEYS."""
    click.echo(new_key())


@sessions.command("keys")
@app_option
@uri_option
def keys_command(uri: str | None, app: str) -> None:
    """Show how many sessions, and values of `user:` and `app:` state, need each key."""
    from .rotation import survey

    show(run(uri, lambda service: survey(service.store, app)))


@sessions.command()
@app_option
@uri_option
def rotate(uri: str | None, app: str) -> None:
    """Encrypt all records of the app anew with the first key of SESSION_KEYS.

    The service may run meanwhile, with the same keys. Exit status 1 says that a record needs another key.
    """
    from .rotation import Survey, encrypt_anew, survey

    async def work(service: "PersistentSessionService") -> Survey:
        await service.check()
        await encrypt_anew(service.store, app)
        return await survey(service.store, app)

    found = run(uri, work)
    show(found)
    if left := found.needed - {found.first}:
        raise click.ClickException(f"Some records could not be encrypted anew: {', '.join(sorted(left))}.")


def show(found: "Survey") -> None:
    """Print what needs which key."""
    if not found.needed:
        click.echo("There are no records.", err=True)
        return
    rows = [
        (name, found.sessions[name], found.values[name], found.role(name))
        for name in sorted(found.needed, key=lambda name: name != found.first)
    ]
    print_table(("KEY", "SESSIONS", "VALUES", ""), rows)
