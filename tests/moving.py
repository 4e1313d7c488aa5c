"""Fills a session service of ADK, copies it to a store of this project, and compares both.

`test_moving.py` runs this file in the environment of a baked project: `moving.py SOURCE TARGET SESSIONS`. With
`v0+` before the source, the tables have the schema of google-adk before 1.22.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from click.testing import CliRunner


async def create_tables(uri: str) -> None:
    """Create ADK's tables with the old schema."""
    from google.adk.sessions.schemas import v0
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(uri)
    async with engine.begin() as connection:
        await connection.run_sync(v0.Base.metadata.create_all)
    await engine.dispose()


async def main(source: str, target: str, count: int) -> None:
    """Print `equal`, or what differs."""
    package = importlib.import_module(Path().absolute().name.replace("-", "_") + ".sessions")
    sources = importlib.import_module(f"{package.__name__}.commands.sources")
    cli = importlib.import_module(f"{package.__name__}.commands.cli")
    tests = importlib.import_module("tests.proof.test_transfer")
    uri = source.removeprefix("v0+")
    if uri.startswith("sqlite"):
        Path(uri.partition("///")[2]).touch()
    if uri != source:
        await create_tables(uri)
    adk = sources.open_adk(uri).service
    await tests.fill(adk, count)
    before = await tests.read_all(adk)
    arguments = ["copy", "--from", uri, "--to", target, "--ttl", "0", "--verify"]
    for wanted in (f"Copied {count} sessions, skipped 0 ", f"Copied 0 sessions, skipped {count} "):
        result = await asyncio.to_thread(CliRunner().invoke, cli.sessions, arguments)
        if wanted not in result.output:
            sys.exit(f"{result.output}\n{result.exception!r}")
    async with package.create_session_service(target) as service:
        after = await tests.read_all(service)
        gone = await service.get_user_state(app_name=cli.APP_NAME, user_id="gone")
    if gone != {"name": "Ada"}:
        sys.exit(f"the state of a user without sessions: {gone}")
    for key in before.keys() | after.keys():
        for session in (before[key], after[key]):
            if session["events"]:
                session["last_update_time"] = round(session["last_update_time"], 3)
        if before[key] != after[key]:
            sys.exit(f"{key}: {before[key]}\n{after[key]}")
    print("equal")


if __name__ == "__main__":
    work: Coroutine[Any, Any, None] = main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    asyncio.run(work)
