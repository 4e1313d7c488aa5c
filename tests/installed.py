"""Runs commands in a baked project whose dependencies are installed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .baking import BACKENDS

SCHEME = "acme"
ENDS_WITHIN = 900
STARTS_WITHIN = 300

SERVE = """
import sys
from pathlib import Path
from tests.servers import serve

with serve(Path(sys.argv[1])) as uri:
    print(uri, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Project:
    """A baked project after `make setup`."""

    folder: Path
    backend: str

    @property
    def package(self) -> str:
        """Return the name of its package, which is also the name of the agent."""
        return self.folder.name.replace("-", "_")

    @property
    def row(self) -> dict[str, Any]:
        """Return the row of its backend in cookiecutter.json."""
        return BACKENDS[self.backend]

    def tool(self, name: str) -> str:
        """Return the path of a command of its environment."""
        return str(self.folder / ".venv" / "bin" / name)

    def start(self, *command: str, uri: str = "", **options: Any) -> subprocess.Popen[str]:
        """Start a command in its folder, without the variables of the tests' own environment."""
        ours = (
            "VIRTUAL_ENV",
            "SESSION_SERVICE_URI",
            "MODEL",
            "MAKEFLAGS",
            "MAKELEVEL",
            "PYTHONPATH",
        )
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ours and not name.startswith(("GOOGLE_", "GEMINI_", "PYTEST_", "COV_"))
        }
        if uv := environment.get("UV"):
            environment["PATH"] = f"{Path(uv).parent}{os.pathsep}{environment['PATH']}"
        if uri:
            environment["SESSION_SERVICE_URI"] = uri
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**environment, "DOCKER": "no", "PYTHONUNBUFFERED": "1"},
            text=True,
            encoding="utf-8",
            **options,
        )

    def run(self, *command: str, uri: str = "", typed: str = "") -> tuple[int, str]:
        """Run a command, and return its exit status and output."""
        pipes = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "start_new_session": True,
        }
        process = self.start(*command, uri=uri, **pipes)
        try:
            said, _ = process.communicate(typed, timeout=ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            raise AssertionError(f"{' '.join(command)} did not end:\n{said}") from None
        return process.returncode, said

    def make(self, *words: str) -> str:
        """Run a make target, which must succeed, and return its output."""
        status, said = self.run("make", *words)
        assert status == 0, said
        return said

    @contextmanager
    def server(self, data: Path) -> Iterator[str]:
        """Run the server of its tests with its data in a folder, and yield its URI."""
        data.mkdir(exist_ok=True)
        command = (self.tool("python"), "-c", SERVE, str(data))
        process = self.start(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout
        try:
            uri = process.stdout.readline().strip()
            assert uri, "the server did not start"
            yield uri
        finally:
            process.communicate()

    @contextmanager
    def web(
        self,
        *command: str,
        log: Path,
        uri: str = "",
        stdin: int = subprocess.DEVNULL,
        end: int = 9,
    ) -> Iterator[Web]:
        """Start a command that serves HTTP, or `make dev`. In the end, a signal goes to all its processes."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        name, *arguments = command
        words = [self.tool(name), *arguments, f"--port={port}"]
        with log.open("w") as output:
            process = self.start(
                *([*command, f"ARGS=--port={port}"] if name == "make" else words),
                uri=uri,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            web = Web(f"http://127.0.0.1:{port}", self.package)
            web.wait(process, log)
            yield web
        finally:
            os.killpg(process.pid, end)
            process.wait(ENDS_WITHIN)


@dataclass(frozen=True)
class Web:
    """ADK's API over HTTP."""

    address: str
    app: str

    def wait(self, process: subprocess.Popen[str], log: Path) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + STARTS_WITHIN
        while process.poll() is None and time.monotonic() < deadline:
            try:
                assert self.app in self.call("/list-apps")
                return
            except urllib.error.URLError:
                time.sleep(0.05)
        raise AssertionError(f"it does not serve:\n{log.read_text()}")

    def call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a request, as POST if it has a body, and return the reply."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, data, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def create(self, session: str) -> None:
        """Create a session of the user `ada`."""
        self.call(f"/apps/{self.app}/users/ada/sessions/{session}", {})

    def session(self, session: str) -> Any:
        """Return a session of the user `ada`."""
        return self.call(f"/apps/{self.app}/users/ada/sessions/{session}")

    def say(self, session: str, text: str) -> str:
        """Send a message to the agent and return its last text."""
        message = {"role": "user", "parts": [{"text": text}]}
        names = {"appName": self.app, "userId": "ada", "sessionId": session}
        events = self.call("/run", {**names, "newMessage": message})
        last: str = events[-1]["content"]["parts"][0]["text"]
        return last
