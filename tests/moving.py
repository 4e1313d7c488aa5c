"""Fills, reads, copies and dumps stores in the environment of a baked project.

`moves.py` runs this file with the project's Python in the project's folder. A line of standard input is a call: a
list of JSON with the name of a function below and its arguments. The line of output is what the function returns.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import inspect
import json
import os
import secrets
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dumping
from click.testing import CliRunner

package = importlib.import_module(Path().absolute().name.replace("-", "_") + ".sessions")
cli = importlib.import_module(f"{package.__name__}.commands.cli")
sources = importlib.import_module(f"{package.__name__}.commands.sources")
transfer = importlib.import_module(f"{package.__name__}.commands.transfer")
errors = importlib.import_module(f"{package.__name__}.errors")
seam = importlib.import_module(f"{package.__name__}.store")
servers = importlib.import_module("tests.servers")
support = importlib.import_module("tests.sessions.support")
test_transfer = importlib.import_module("tests.proof.test_transfer")

APP = cli.APP_NAME
V0 = "v0+"
"""Before the URI of a source: the tables have the schema of google-adk before 1.22."""

running, emptied = ExitStack(), ExitStack()


def adk_version() -> str:
    """Return the version of ADK."""
    return importlib.metadata.version("google-adk")


def start(directory: str) -> str:
    """Start the server of the project's tests, and return its session URI."""
    uri: str = running.enter_context(servers.serve(Path(directory), lasting=False))
    return uri


def namespace(uri: str) -> str:
    """Return the session URI of an empty store. The one before is removed."""
    emptied.close()
    own: str = emptied.enter_context(servers.namespace(uri))
    return own


def command(*arguments: str, output: str = os.devnull) -> tuple[int, str]:
    """Run `sessions …`, and return its exit status and what it says. Standard output goes to a file."""
    result = CliRunner().invoke(cli.sessions, arguments)
    Path(output).write_text(result.stdout, "utf-8")
    return result.exit_code, result.stderr


def export(uri: str, output: str) -> tuple[int, str]:
    """Export a store to a file."""
    return command("export", "--all", "--uri", uri, output=output)


async def fill_adk(source: str, count: int) -> dict[str, Any]:
    """Write sessions with a service of ADK, and return what it reads."""
    uri = source.removeprefix(V0)
    if uri.startswith("sqlite"):
        Path(uri.partition("///")[2]).touch()
    if uri != source:
        await create_tables(uri)
    service = sources.open_adk(uri).service
    await test_transfer.fill(service, count)
    found = await test_transfer.read_all(service)
    gone = await service.get_user_state(app_name=APP, user_id="gone")
    return {"sessions": by_name(found), "users": {"gone": gone}}


async def create_tables(uri: str) -> None:
    """Create ADK's tables with the old schema."""
    from google.adk.sessions.schemas import v0
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(uri)
    async with engine.begin() as connection:
        await connection.run_sync(v0.Base.metadata.create_all)
    await engine.dispose()


async def fill(uri: str) -> None:
    """Write 25 sound sessions of users with odd ids, with expired sessions and damaged records beside them."""
    async with package.create_session_service(uri) as service:
        for number, user in enumerate(support.ODD_IDS):
            state = {"user:of": user, "app:n": {number, -1}, f"own {user}"[:99]: (user, None, 1.5)}
            name = {"app_name": APP, "user_id": user}
            session = await service.create_session(
                **name, session_id=f"{user} of", state=state, ttl=number % 3 * 3600
            )
            for turn in range(number % 4):
                said = support.event(
                    f"{user} {turn}", timestamp=1e9 + turn / 4, n=turn, user__n=turn
                )
                await service.append_event(session, said)
            gone = {**name, "user_id": f"gone {user}" if number % 2 else user}
            await service.create_session(
                **gone, session_id="expired", state={"user:expired": user}, ttl=1
            )
        for kind in ("event", "state", "shared"):
            await damage(service, kind)
    time.sleep(1.5)


async def damage(service: Any, kind: str) -> None:
    """Write a session with a record that cannot be read: an event, a value, or two shared values."""
    session = await service.create_session(
        app_name=APP, user_id="damaged", session_id=kind, state={"user:sound": 1}, ttl=0
    )
    state = {
        "event": seam.ScopedState(),
        "state": seam.ScopedState(session={"bad": b"{"}),
        "shared": seam.ScopedState(user={"bad": b"{", "good": b"1"}, app={"bad": b"{"}),
    }
    await service.store.append(
        session.head.key,
        expected=session.position,
        event=b"{" if kind == "event" else transfer.encode(support.event("sound")),
        timestamp=1.0,
        state=state[kind],
        now=session.last_update_time,
    )


async def read(uri: str) -> dict[str, Any]:
    """Return all that can be read of a store: sessions, their TTLs, and state of users and of the app."""
    found, ttls, unreadable = {}, {}, 0
    async with package.create_session_service(uri) as service:
        for record in await service.store.list(APP, None, now=time.time()):
            key = record.head.key
            name = {"app_name": APP, "user_id": key.user_id, "session_id": key.session_id}
            try:
                session = await service.get_session(**name)
            except errors.CorruptSession:
                unreadable += 1
                continue
            found[key.user_id, key.session_id] = session.model_dump(mode="json")
            ttls[json.dumps([key.user_id, key.session_id])] = session.ttl
        names = [user async for user in service.store.users(APP)]
        users = {
            user: await service.get_user_state(app_name=APP, user_id=user) for user in sorted(names)
        }
        app = await service.store.app_state(APP)
        sound = {name: repr(data) for name, data in app.items() if data != b"{"}
    state = {user: state for user, state in users.items() if state}
    return {
        "sessions": by_name(found),
        "ttls": ttls,
        "users": state,
        "app": sound,
        "unreadable": unreadable,
    }


def by_name(found: dict[tuple[str, str], Any]) -> dict[str, Any]:
    """Return sessions by user and id in JSON, with times in milliseconds, as some of ADK's services have them."""
    for session in found.values():
        session["last_update_time"] = round(session["last_update_time"], 3)
    return {json.dumps(name): session for name, session in found.items()}


async def search_dump(uri: str, directory: str) -> dict[str, int]:
    """Store a mark with keys and one without, dump the store, and return how often each is in the dump.

    `bytes` is the size of the dump.
    """
    encryption = importlib.import_module("tests.proof.test_encryption")
    keys = importlib.import_module(f"{package.__name__}.keys")
    marks = {"encrypted": secrets.token_hex(8), "clear": secrets.token_hex(8)}
    for kind, mark in marks.items():
        os.environ.pop("SESSION_KEYS", None)
        if kind == "encrypted":
            os.environ["SESSION_KEYS"] = keys.new_key()
        await encryption.write(uri, mark)
    dump = getattr(dumping, servers.backend.__name__.rpartition(".")[2])
    pieces = await asyncio.to_thread(lambda: list(dump(uri, Path(directory))))
    counts = {
        kind: sum(each.count(mark.encode()) for each in pieces) for kind, mark in marks.items()
    }
    return counts | {"bytes": sum(map(len, pieces))}


def main() -> None:
    """Answer calls until standard input ends."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print goes to standard error
    with running, emptied:
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            result = globals()[name](*arguments)
            if inspect.isawaitable(result):
                result = asyncio.run(result)  # type: ignore[arg-type]
            print(json.dumps(result), file=output, flush=True)


if __name__ == "__main__":
    main()
