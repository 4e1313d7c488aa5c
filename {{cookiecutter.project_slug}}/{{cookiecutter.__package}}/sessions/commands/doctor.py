"""`doctor` checks the settings, the agent and the session store."""

import asyncio
import importlib
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version
from typing import TypeVar
from uuid import uuid4

import click

from .. import create_session_service
from ..config import APP_NAME
from ..environment import dotenv_files
from ..errors import SessionStoreError

T = TypeVar("T")


class CheckFailed(Exception):
    """A check failed. The message names the problem and the remedy."""


@click.command()
@click.option("--uri", help="Session URI to check instead of the configured one.")
def doctor(uri: str | None) -> None:
    """Check the settings, the agent and the session store."""
    checks: list[Callable[[], Iterator[str]]] = [
        show_versions,
        check_environment,
        check_agent,
        lambda: check_store(uri),
    ]
    healthy = True
    for check in checks:
        try:
            for line in check():
                click.echo(f"{click.style('ok', fg='green')}    {line}")
        except CheckFailed as problem:
            healthy = False
            click.echo(f"{click.style('wrong', fg='red')} {problem}")
    sys.exit(0 if healthy else 1)


def show_versions() -> Iterator[str]:
    """Show the versions of Python and ADK. `uv sync` installs the right ones."""
    yield f"Python {platform.python_version()} on {platform.system()}, google-adk {version('google-adk')}"


def check_environment() -> Iterator[str]:
    """Name the `.env` files. None is needed."""
    files = ", ".join(map(str, dotenv_files()))
    yield f"settings from {files}" if files else "no .env file"


def check_agent() -> Iterator[str]:
    """Load the agent and name its model."""
    try:
        agent = importlib.import_module(f"{APP_NAME}.agent").root_agent
    except Exception as error:
        raise CheckFailed(f"{APP_NAME}/agent.py cannot be loaded: {error!r}.") from error
    model = getattr(agent, "model", "")
    yield f"agent {agent.name}, model {model if isinstance(model, str) else model.model}"


def check_store(uri: str | None) -> Iterator[str]:
    """Write a session to the store and read it."""
    steps: list[str] = []
    try:
        asyncio.run(try_store(uri, steps.append))
    except (SessionStoreError, ImportError) as error:
        yield from steps
        raise CheckFailed(str(error)) from error
    yield from steps


async def try_store(uri: str | None, done: Callable[[str], None]) -> None:
    """Create, read and delete a session of an app with a random name."""
    from google.adk.events.event import Event

    async with create_session_service(uri) as service:
        done(service.description)
        if missing := await service.store.missing():
            done(f"{missing}: it is created with the first session")
            return
        _, milliseconds = await timed(service.check())
        done(f"the store answers in {milliseconds:.1f} ms")
        app, user, event = f"doctor-{uuid4().hex}", "doctor", Event(author="doctor")
        try:
            session, created = await timed(service.create_session(app_name=app, user_id=user))
            _, appended = await timed(service.append_event(session, event))
            found, read = await timed(
                service.get_session(app_name=app, user_id=user, session_id=session.id)
            )
        finally:
            for left in (await service.list_sessions(app_name=app)).sessions:
                await service.delete_session(app_name=app, user_id=user, session_id=left.id)
        if found is None or [stored.id for stored in found.events] != [event.id]:
            raise CheckFailed("The store did not give back the event that was put in: report this.")
        done(
            f"a session was created in {created:.1f} ms, got an event in {appended:.1f} ms,"
            f" was read in {read:.1f} ms and deleted"
        )


async def timed(call: Awaitable[T]) -> tuple[T, float]:
    """Return the result of a call and the milliseconds that it took."""
    start = time.perf_counter()
    result = await call
    return result, (time.perf_counter() - start) * 1_000
