"""`sessions new-key | keys | rotate`: the keys of encrypted sessions."""

from typing import TYPE_CHECKING

import click

from ..keys import CLEAR_TEXT, KEYS_VARIABLE, new_key, session_keys
from .common import app_option, run, uri_option
from .terminal import print_table

if TYPE_CHECKING:
    from ..service import PersistentSessionService


@click.command("new-key")
def new_key_command() -> None:
    """Print a new key for SESSION_KEYS."""
    click.echo(new_key())


@click.command()
@app_option
@uri_option
def keys(uri: str | None, app: str) -> None:
    """Show how many sessions, and values of `user:` and `app:` state, need each key."""
    from ..rotation import count_keys

    show(run(uri, lambda service: count_keys(service.store, app)))


@click.command()
@app_option
@uri_option
def rotate(uri: str | None, app: str) -> None:
    """Encrypt all records of the app anew with the first key of SESSION_KEYS.

    The service may run meanwhile, with the same keys. Exit status 1 says that a record needs another key.
    """
    from ..rotation import count_keys, encrypt_anew

    async def work(service: "PersistentSessionService") -> dict[str, tuple[int, int]]:
        await encrypt_anew(service.store, app)
        return await count_keys(service.store, app)

    found = run(uri, work)
    show(found)
    if found.keys() - {str(session_keys()[0])}:
        raise click.ClickException(
            "Some records were not encrypted anew. `sessions check` says why."
        )


def show(found: dict[str, tuple[int, int]]) -> None:
    """Print how many sessions and values need each key."""
    keys = [str(key) for key in session_keys()]
    roles = dict.fromkeys(keys, "reads") | dict.fromkeys(keys[:1], "writes") | {CLEAR_TEXT: ""}
    missing = f"not in {KEYS_VARIABLE}"
    rows = [(name, *counts, roles.get(name, missing)) for name, counts in sorted(found.items())]
    print_table(("KEY", "SESSIONS", "VALUES", "ROLE"), rows)
