"""Starts the programs of this project and talks to them over HTTP."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from {{ cookiecutter.__package }}.sessions.config import APP_NAME
from {{ cookiecutter.__package }}.sessions.environment import PROJECT

STARTS_WITHIN = 300.0
"""Seconds. Generous, because a busy machine is slow."""

USER = "test_user"
"""The user of `adk run`."""

AGENTS = Path(__file__).parent / ".agents"
"""A folder with one agent, `noter`, which needs no key. It is hidden from `adk web`, which lists the agents of all
folders below the one that it serves."""

PYTHON = [sys.executable, "-m", APP_NAME]
ADK = [shutil.which("adk", path=str(Path(sys.executable).parent)) or "adk"]


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Program:
    """A program of this project with a session URI. Its output goes to a file."""

    def __init__(self, arguments: Sequence[str], uri: str, output: Path) -> None:
        self.output = output
        environment = {**os.environ, "MODEL": "offline", "SESSION_SERVICE_URI": uri}
        if arguments[0] in ADK:
            # ADK does not read the variable: it takes the URI as an option.
            arguments = [*arguments[:2], f"--session_service_uri={uri}", *arguments[2:]]
            del environment["SESSION_SERVICE_URI"]
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                arguments,
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def printed(self) -> str:
        """Return the output so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> int:
        """Wait for the end and return the exit status."""
        return self.process.wait(STARTS_WITHIN)

    def kill(self) -> None:
        """Kill the process, without a chance to save anything."""
        self.process.kill()
        self.process.wait()


class Server(Program):
    """A program that serves HTTP."""

    def __init__(
        self, arguments: Sequence[str], uri: str, output: Path, *, port: int | None = None
    ) -> None:
        port = port or free_port()
        super().__init__([*arguments, f"--port={port}"], uri, output)
        # Loopback must not go through a proxy of the environment.
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    def ready(self) -> Self:
        """Wait until it answers."""
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.http.get("/health").raise_for_status()
                return self
            except httpx.HTTPError:
                time.sleep(0.05)
        raise AssertionError(f"The server did not start:\n{self.printed()}")

    def kill(self) -> None:
        """Kill the process and close the client."""
        self.http.close()
        super().kill()

    def create(self, session: str, *, app: str = APP_NAME, **body: Any) -> None:
        """Create a session."""
        self._json(
            "POST", f"/apps/{app}/users/{USER}/sessions", json={"session_id": session, **body}
        )

    def get(self, session: str, *, app: str = APP_NAME) -> dict[str, Any]:
        """Return a session."""
        found: dict[str, Any]
        found = self._json("GET", f"/apps/{app}/users/{USER}/sessions/{session}")
        return found

    def say(self, session: str, text: str, *, app: str = "noter") -> str:
        """Send a message in a session and return the answer."""
        events = self._json("POST", "/run", json=message(session, text, app=app))
        answer: str = events[-1]["content"]["parts"][0]["text"]
        return answer

    def _json(self, method: str, path: str, **more: Any) -> Any:
        response = self.http.request(method, path, **more)
        assert response.is_success, f"{response.text}\n{self.printed()}"
        return response.json()


def message(session: str, text: str, *, app: str = "noter", user: str = USER) -> dict[str, Any]:
    """Return the body of a request to `/run`."""
    content = {"role": "user", "parts": [{"text": text}]}
    return {"app_name": app, "user_id": user, "session_id": session, "new_message": content}
