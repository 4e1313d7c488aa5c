"""`doctor` checks the settings, the agent and the session store."""

import asyncio
import importlib
import platform
import sys
import time
from collections.abc import Awaitable
from importlib.metadata import version
from typing import TypeVar
from uuid import uuid4

import click

from .. import create_session_service
from ..config import APP_NAME
from ..environment import dotenv_files
from ..errors import SessionStoreError
from .common import uri_option

T = TypeVar("T")


@click.command()
@uri_option
def doctor(uri: str | None) -> None:
    """Check the settings, the agent and the session store."""
    ok(
        f"Python {platform.python_version()} on {platform.system()}, google-adk {version('google-adk')}"
    )
    files = ", ".join(map(str, dotenv_files()))
    ok(f"settings from {files}" if files else "no .env file")
    healthy = True
    for check in (check_agent, lambda: asyncio.run(check_store(uri))):
        try:
            check()
        except (click.ClickException, SessionStoreError, ImportError) as problem:
            healthy = False
            click.echo(f"{click.style('wrong', fg='red')} {problem}")
    sys.exit(0 if healthy else 1)


def ok(line: str) -> None:
    """Show what was found to be right."""
    click.echo(f"{click.style('ok', fg='green')}    {line}")


def check_agent() -> None:
    """Load the agent and name its model."""
    try:
        agent = importlib.import_module(f"{APP_NAME}.agent").root_agent
    except Exception as error:
        raise click.ClickException(f"{APP_NAME}/agent.py cannot be loaded: {error!r}.") from error
    model = getattr(agent, "model", "")
    ok(f"agent {agent.name}, model {model if isinstance(model, str) else model.model}")


async def check_store(uri: str | None) -> None:
    """Create, read and delete a session of an app with a random name."""
    from google.adk.events.event import Event

    async with create_session_service(uri) as service:
        ok(service.description)
        if missing := await service.store.missing():
            ok(f"{missing}: it is created with the first session")
            return
        _, milliseconds = await timed(service.check())
        ok(f"the store answers in {milliseconds:.1f} ms")
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
            raise click.ClickException(
                "The store did not give back the event that was put in: report this."
            )
        ok(
            f"a session was created in {created:.1f} ms, got an event in {appended:.1f} ms,"
            f" was read in {read:.1f} ms and deleted"
        )


async def timed(call: Awaitable[T]) -> tuple[T, float]:
    """Return the result of a call and the milliseconds that it took."""
    start = time.perf_counter()
    result = await call
    return result, (time.perf_counter() - start) * 1_000
