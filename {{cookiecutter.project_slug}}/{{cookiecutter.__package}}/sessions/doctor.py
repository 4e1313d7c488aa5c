"""`doctor` checks the installation, the agent and the session store."""

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
    """A check failed. The message names the problem and the remedy."""


@click.command()
@click.option("--uri", help="Session URI to check instead of the configured one.")
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
    """Check the version of Python."""
    from packaging.specifiers import SpecifierSet

    version, wanted = platform.python_version(), project()[0]
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        raise CheckFailed(
            f"Python {version} is not within {wanted}: run `uv sync`, which brings one."
        )
    yield f"Python {version} on {platform.system()}"


def check_requirements() -> Iterator[str]:
    """Check the versions of the dependencies."""
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
    """Return the required versions of Python and packages, from pyproject.toml or the installation."""
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
