"""Projects to measure, and what runs in them: their server, and a process for each contestant."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .child import ROOT, Child
from .contestants import IN_MEMORY, contestants_of

CACHE = ROOT / ".bench"
BACKENDS: list[str] = list(json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))["_backends"])
SLOW = {"mongodb": "timeoutMS=60000", "dynamodb": "timeout=60", "gcs": "timeout=60"}
"""What stands in for these in the tests takes many milliseconds: shorter sessions, fewer rounds, and these
options of session URIs, because much is stored at once before anything is measured."""
LONGEST = {"mongodb": 1_000, "dynamodb": 100, "gcs": 1_000}
"""Events of the longest sessions on these. The emulator of DynamoDB copies its tables in each transaction."""


@dataclass
class Project:
    """A baked and installed project."""

    folder: Path
    label: str = "ours"

    @property
    def python(self) -> Path:
        """Its Python."""
        scripts = "Scripts/python.exe" if os.name == "nt" else "bin/python"
        return self.folder / ".venv" / scripts


@dataclass
class Contestant:
    """Who takes part, and as what."""

    who: str
    project: Project
    options: dict[str, Any] = field(default_factory=dict)
    """Of `create_session_service`."""
    encrypted: bool = False
    """Whether it has SESSION_KEYS."""
    recent: int | None = None
    """How many events a turn reads; all by default."""
    rival: str | None = None
    """The name of a service of ADK's that takes part instead of the project's own."""
    profile: str | None = None
    """Where a profile of what is measured is written; that makes everything slower."""

    @property
    def kind(self) -> str:
        """What the worker is told."""
        told = ("options", "encrypted", "recent", "rival", "profile")
        return json.dumps({name: getattr(self, name) for name in told})


def rivals(backend: str, project: Project, *, adk: bool = True) -> list[Contestant]:
    """Return ADK's own services: the one that keeps nothing, and those for this backend."""
    names = [IN_MEMORY]
    if adk and (module := contestants_of(backend)):
        names += module.RIVALS
    return [Contestant(name, project, rival=name) for name in names]


def bake(backend: str) -> Project:
    """Bake a project into `.bench` and install it; the environment of an earlier one is kept."""
    project = Project(CACHE / backend / "my-agent")
    kept = project.folder.with_name("venv")
    if project.folder.exists():
        if project.python.exists():
            shutil.rmtree(kept, ignore_errors=True)
            project.python.parent.parent.rename(kept)
        shutil.rmtree(project.folder)
    cookiecutter = [sys.executable, "-m", "cookiecutter", str(ROOT)]
    answers = ["--no-input", "--default-config", f"backend={backend}"]
    run([*cookiecutter, "--output-dir", str(project.folder.parent), *answers], ROOT)
    if kept.exists():
        kept.rename(project.folder / ".venv")
    return project


def install(backend: str, project: Project) -> None:
    """Install the project, and what ADK's own services need."""
    run(["uv", "sync", "--quiet"], project.folder)
    if (module := contestants_of(backend)) and module.REQUIREMENTS:
        run(["uv", "pip", "install", "--quiet", *module.REQUIREMENTS], project.folder)


def run(command: list[str], folder: Path) -> None:
    """Run a command quietly, and show what it said if it failed."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "SESSION_SERVICE_URI")
    }
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"Error: {' '.join(command[:4])} failed.\n{ran.stdout}{ran.stderr}")


@asynccontextmanager
async def serving(backend: str, project: Project) -> AsyncIterator[str]:
    """Run the test server of a project; the value is its session URI."""
    child = await Child.start("server", backend, python=project.python, folder=project.folder)
    try:
        uri = (await child.answer())["uri"]
        yield f"{uri}{'&' if '?' in uri else '?'}{SLOW[backend]}" if backend in SLOW else uri
    finally:
        await child.stop()


@asynccontextmanager
async def proxying() -> AsyncIterator[Child]:
    """Run a proxy."""
    child = await Child.start("proxy", python=Path(sys.executable), folder=ROOT)
    try:
        yield child
    finally:
        await child.stop()


async def through(proxy: Child, backend: str, uri: str) -> str:
    """Return a session URI by way of a proxy."""
    detour: str = await proxy.call("open", uri=uri)
    direct = getattr(contestants_of(backend), "DIRECT", None)
    return f"{detour}{'&' if '?' in detour else '?'}{direct}" if direct else detour


@asynccontextmanager
async def working(
    backend: str, contestants: Sequence[Contestant], uris: dict[str, str]
) -> AsyncIterator[dict[str, Child]]:
    """Run a process for each contestant; the value is the processes by the contestants' names.

    Left out is one whose options its project does not know. `uris` are by the projects' labels.
    """
    async with AsyncExitStack() as stack:

        async def start(contestant: Contestant) -> tuple[str, Child] | None:
            project = contestant.project
            child = await Child.start(
                *("worker", backend, uris[project.label], contestant.kind),
                python=project.python,
                folder=project.folder,
            )
            stack.push_async_callback(child.stop)
            return (contestant.who, child) if "opened" in await child.answer() else None

        started = await asyncio.gather(*map(start, contestants))
        yield dict(one for one in started if one)
