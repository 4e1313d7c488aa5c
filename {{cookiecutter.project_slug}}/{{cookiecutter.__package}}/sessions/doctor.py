"""`doctor`: checks that everything the agent needs is in place, and says how to fix what is not."""

import asyncio
import importlib
import platform
import sys
import time
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from importlib import metadata
from typing import TypeVar
from uuid import uuid4

import click

from . import create_session_service
from .config import APP_NAME
from .environment import PROJECT, dotenv_files
from .errors import SessionStoreError

T = TypeVar("T")


class CheckFailed(Exception):
    """Something is wrong. The text says what, and how to fix it."""


@click.command()
@click.option("--uri", help="Session URI to look at, instead of the one that would be used.")
def doctor(uri: str | None) -> None:
    """Check the installation, the agent and the session store."""
    checks: list[Callable[[], Iterator[str]]] = [
        check_python,
        check_requirements,
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


def check_python() -> Iterator[str]:
    """Python is one that the project was made for."""
    from packaging.specifiers import SpecifierSet

    version, wanted = platform.python_version(), project()[0]
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        raise CheckFailed(
            f"Python {version} is not within {wanted}: run `uv sync`, which brings one."
        )
    yield f"Python {version} on {platform.system()}"


def check_requirements() -> Iterator[str]:
    """What the project depends on is installed, in versions that it was made for."""
    from packaging.requirements import Requirement

    wrong = []
    for requirement in map(Requirement, project()[1]):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version}"
        else:
            wrong.append(f"{requirement.name} {version} is not within {requirement.specifier}")
    if wrong:
        raise CheckFailed(f"{'; '.join(wrong)}: run `uv sync` in the project.")


def project() -> tuple[str, list[str]]:
    """Return which Python and which packages the project needs, from its file or as installed."""
    pyproject = PROJECT / "pyproject.toml"
    if pyproject.is_file():
        table = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        return table["requires-python"], table["dependencies"]
    try:
        installed = metadata.distribution(APP_NAME)
    except metadata.PackageNotFoundError:
        raise CheckFailed(f"{APP_NAME} is not installed: run `uv sync` in the project.") from None
    return installed.metadata["Requires-Python"] or "", installed.requires or []


def check_environment() -> Iterator[str]:
    """Say where settings come from; to have no `.env` is fine."""
    files = ", ".join(map(str, dotenv_files()))
    yield f"settings from {files}" if files else "no .env file; the defaults hold"


def check_agent() -> Iterator[str]:
    """The agent can be loaded, and says which model answers."""
    try:
        agent = importlib.import_module(f"{APP_NAME}.agent").root_agent
    except Exception as error:
        raise CheckFailed(f"{APP_NAME}/agent.py cannot be loaded: {error!r}.") from error
    model = getattr(agent, "model", "")
    yield f"agent {agent.name}, model {model if isinstance(model, str) else model.model}"


def check_store(uri: str | None) -> Iterator[str]:
    """The session store can be reached, and gives back what was put in."""
    steps: list[str] = []
    try:
        asyncio.run(try_store(uri, steps.append))
    except (SessionStoreError, ImportError) as error:
        yield from steps
        raise CheckFailed(str(error)) from error
    yield from steps


async def try_store(uri: str | None, done: Callable[[str], None]) -> None:
    """Open the store and send one session through it, under an app that nobody else has."""
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
