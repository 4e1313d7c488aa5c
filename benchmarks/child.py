"""Child processes that answer calls: one JSON document a line, over standard input and output."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class ChildFailed(Exception):
    """The process ended instead of answering; its own words are on standard error."""


class Child:
    """A Python process that runs a module of this package. Use `start` to make one."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        """Take over a process that was started with pipes."""
        self._process, self._name = process, name

    @classmethod
    async def start(cls, module: str, *arguments: str, python: Path, folder: Path) -> Child:
        """Run a module with a Python in a folder; the folder's own packages come first."""
        # Warnings of libraries and a URI of this shell's owner have no part in a measurement.
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        environment.pop("SESSION_SERVICE_URI", None)
        process = await asyncio.create_subprocess_exec(
            *(str(python), "-m", f"benchmarks.{module}", *arguments),
            cwd=folder,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        return cls(process, module)

    async def call(self, method: str, **arguments: Any) -> Any:
        """Have a method called there, and return what it returns."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": method, **arguments}).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> Any:
        """Return the next document that the process writes."""
        assert self._process.stdout
        line = await self._process.stdout.readline()
        if not line:
            status = await self._process.wait()
            raise ChildFailed(f"benchmarks.{self._name} ended with status {status}.")
        return json.loads(line)

    async def stop(self) -> None:
        """Let the process end and wait for it."""
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()


def private_output() -> Callable[[Any], None]:
    """Return what writes a document to standard output; everything else goes to standard error."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(document: Any) -> None:
        print(json.dumps(document), file=output, flush=True)

    return say


async def serve(served: Any, say: Callable[[Any], None]) -> None:
    """Call the methods that are asked for, one after the other, until standard input ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        request = json.loads(line)
        method: Callable[..., Awaitable[Any]] = getattr(served, request.pop("do"))
        say(await method(**request))
