"""`python -m benchmarks.load BACKEND [--minutes N | --long]`: conversations over HTTP against `serve`, beside `memory://`.

Locust plays the people (`locustfile.py`). The servers take turns: while one is under load, the other one waits. With
`--minutes`, only the project's own sessions are under load, for so long: memory and connections must level off. With
`--long`, one person has a long and a short session, and `recent_events` must make their turns equally fast. The model
is the demo's, which answers at once. Results go to `docs/benchmarks/load.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any
from urllib.request import Request, urlopen

import psutil

from .projects import BACKENDS, Project, bake, install, serving
from .report import DOCS
from .rounds import machine

MEMORY = "memory://"
SAMPLE_SECONDS = 1.0
LEVEL = 1.10
"""Memory of the last quarter of a soak is at most this multiple of that of the second quarter."""
SOAK_OPTIONS = {"cache_mb": "32"}
"""A smaller cache is full within the first quarter of a soak."""
LONG, RECENT = 5_000, 50
"""Events of a long session, and how many of them a turn reads."""
LONG_COST = 1.2
"""A turn of the long session takes at most this multiple of one of a session of `RECENT` events."""


@dataclass
class Load:
    """What one server did under load."""

    who: str
    seconds: float = 0.0
    """Under load."""
    times: Counter[int] = field(default_factory=Counter)
    """Turns by milliseconds."""
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)
    """MB, a sample each second."""
    connections: list[int] = field(default_factory=list)
    """Connections and files that the server has open, besides those of its clients."""

    def percentile(self, share: float) -> int:
        """Return the milliseconds within which this share of turns was answered."""
        wanted, seen = share * self.times.total(), 0
        for milliseconds in sorted(self.times):
            seen += self.times[milliseconds]
            if seen >= wanted:
                return milliseconds
        return 0

    def add(self, told: Sequence[dict[str, Any]], seconds: float) -> None:
        """Add what locust reports of a run."""
        self.seconds += seconds
        for entry in told:
            self.requests += entry["num_requests"]
            if entry["num_failures"]:
                self.errors[entry["name"]] += entry["num_failures"]
            if entry["name"] == "turn":
                self.times.update({int(key): n for key, n in entry["response_times"].items()})

    def row(self) -> str:
        """Return the row of a table."""
        a_second = self.requests / self.seconds
        turns = self.times.total() / self.seconds
        cells = (
            f"`{self.who}`",
            f"{a_second:,.0f}",
            f"{turns:,.1f}",
            f"{self.percentile(0.5):,}",
            f"{self.percentile(0.99):,}",
            f"{self.errors.total()}",
            f"{self.memory[0]:,.0f}",
            f"{self.memory[-1]:,.0f}",
            f"{max(self.connections)}",
        )
        return f"| {' | '.join(cells)} |"


HEAD = """\
| sessions | requests a second | turns a second | turn, median ms | 99 % within, ms | errors | memory before, MB | after | connections and files |
|---|--:|--:|--:|--:|--:|--:|--:|--:|"""


class Server:
    """A running `serve`."""

    def __init__(self, load: Load, port: int, process: subprocess.Popen[bytes]) -> None:
        """Take over a process."""
        self.load, self.port, self.process = load, port, process
        self.address = f"http://127.0.0.1:{port}"

    def sample(self) -> None:
        """Note the memory and the connections."""
        root = psutil.Process(self.process.pid)
        processes = [root, *root.children(recursive=True)]
        self.load.memory.append(sum(p.memory_info().rss for p in processes) / 1e6)
        own = sum(
            connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port != self.port
            for p in processes
            for connection in p.net_connections("inet")
        )
        self.load.connections.append(own + sum(len(p.open_files()) for p in processes))

    def run(self, people: int, seconds: int) -> None:
        """Let people converse for some seconds."""
        done = Event()

        def watch() -> None:
            while not done.is_set():
                self.sample()
                done.wait(SAMPLE_SECONDS)

        watching = Thread(target=watch)
        watching.start()
        options = ["--headless", "--json", "--only-summary", "--loglevel", "ERROR"]
        scale = ["--users", str(people), "--spawn-rate", str(people), "--run-time", f"{seconds}s"]
        script = ["-f", str(Path(__file__).with_name("locustfile.py"))]
        command = [sys.executable, "-m", "locust", *script, *options, *scale]
        began = time.monotonic()
        try:
            ran = subprocess.run(
                [*command, "--host", self.address, "--stop-timeout", "30"],
                capture_output=True,
                text=True,
            )
        finally:
            done.set()
            watching.join()
        if not ran.stdout.strip():
            sys.exit(f"locust failed:\n{ran.stderr}")
        self.load.add(json.loads(ran.stdout), time.monotonic() - began)
        self.sample()


@contextmanager
def serving_http(project: Project, who: str, uri: str, port: int) -> Iterator[Server]:
    """Run `serve` with a session URI."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "GOOGLE_API_KEY", "GEMINI_API_KEY")
    }
    command = [str(project.python), "-m", "my_agent", "serve", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--session_service_uri", uri, "--log_level", "warning"],
            cwd=project.folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
        server = Server(Load(who), port, process)
        try:
            for _ in range(600):
                try:
                    with urlopen(f"{server.address}/ready"):
                        break
                except OSError:
                    time.sleep(0.1)
            else:
                log.seek(0)
                sys.exit(f"serve with {who} is not ready:\n{log.read().decode()}")
            yield server
        finally:
            process.terminate()
            process.wait(60)


def level(load: Load) -> list[str]:
    """Return what did not level off in a soak."""
    quarter = len(load.memory) // 4
    wrong = []
    early, late = median(load.memory[quarter : 2 * quarter]), median(load.memory[-quarter:])
    if late > LEVEL * early:
        wrong.append(f"memory grew from {early:.0f} to {late:.0f} MB")
    if max(load.connections[-quarter:]) > max(load.connections[quarter : 2 * quarter]):
        wrong.append("connections and files grew")
    return wrong


def with_options(uri: str, options: dict[str, str]) -> str:
    """Return a session URI with more options."""
    for name, value in options.items():
        uri += f"{'&' if '?' in uri else '?'}{name}={value}"
    return uri


async def measure(backend: str, people: int, seconds: int, minutes: int) -> tuple[str, list[str]]:
    """Return a page, and what is wrong."""
    project = bake(backend)
    install(backend, project)
    on = machine()
    async with serving(backend, project) as uri:
        ours = with_options(uri, SOAK_OPTIONS if minutes else {})
        scheme = uri.partition(":")[0] + "://"
        with serving_http(project, scheme, ours, 10_811) as server:
            if minutes:
                server.run(people, 60 * minutes)
                servers = [server]
            else:
                with serving_http(project, MEMORY, MEMORY, 10_812) as other:
                    servers = [server, other]
                    for turn in range(4):
                        for each in servers if turn % 2 else servers[::-1]:
                            each.run(people, seconds // 4)
    loads = [each.load for each in servers]
    wrong = [f"{load.who}: {load.errors}" for load in loads if load.errors]
    form = (
        f"{minutes} minutes, `cache_mb=32`" if minutes else f"{seconds} seconds each, in four parts"
    )
    about = "{began}, {system}, {processor}, {cores} cores".format(**on)
    lines = [
        f"{about}. {people} people at once, {form}.",
        "",
        HEAD,
        *(load.row() for load in loads),
    ]
    if minutes:
        wrong += level(loads[0])
        memory, quarter = loads[0].memory, len(loads[0].memory) // 4
        parts = [median(memory[i * quarter : (i + 1) * quarter]) for i in range(4)]
        told = ", ".join(f"{part:.0f}" for part in parts)
        lines += ["", f"Memory in the four quarters, MB: {told}."]
    return "\n".join(lines), wrong


class Conversation:
    """A session of one person, over HTTP."""

    def __init__(self, server: Server, session: str) -> None:
        """Create the session."""
        self.address, self.session = server.address, session
        self.events = 0
        self.seconds: list[float] = []
        self.post("/apps/my_agent/users/one/sessions", {"session_id": session})

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send a request and return the reply."""
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        with urlopen(Request(self.address + path, data, headers)) as response:
            return json.load(response)

    def turn(self) -> None:
        """Send a message and wait for the answer."""
        message = {"role": "user", "parts": [{"text": "Are you there?"}]}
        names = {"app_name": "my_agent", "user_id": "one", "session_id": self.session}
        began = time.perf_counter()
        answer = self.post("/run", {**names, "new_message": message})
        self.seconds.append(time.perf_counter() - began)
        self.events += 1 + len(answer)


async def measure_long(backend: str) -> tuple[str, list[str]]:
    """Return a page, and what is wrong."""
    project = bake(backend)
    install(backend, project)
    on = machine()
    async with serving(backend, project) as uri:
        scheme = uri.partition(":")[0] + "://"
        ours = with_options(uri, {"recent_events": f"{RECENT}"})
        with serving_http(project, scheme, ours, 10_811) as server:
            process = psutil.Process(server.process.pid)
            pair = Conversation(server, "short"), Conversation(server, "long")
            for conversation, events in zip(pair, (RECENT, LONG), strict=True):
                while conversation.events < events:
                    conversation.turn()
                conversation.seconds.clear()
            cpu = [0.0, 0.0]
            lengths = [conversation.events for conversation in pair]
            for _ in range(10):
                for number, conversation in enumerate(pair):
                    before = process.cpu_times()
                    for _ in range(10):
                        conversation.turn()
                    after = process.cpu_times()
                    cpu[number] += after.user + after.system - before.user - before.system
    about = "{began}, {system}, {processor}, {cores} cores".format(**on)
    lines = [
        f"{about}. Turns of two sessions, ten by ten, 100 of each, with `recent_events={RECENT}`.",
        "",
        "| events of the session | turn, median ms | processor, ms a turn |",
        "|--:|--:|--:|",
    ]
    for conversation, used, events in zip(pair, cpu, lengths, strict=True):
        lines.append(
            f"| {events:,} | {1000 * median(conversation.seconds):.1f} | {10 * used:.1f} |"
        )
    short, long = (median(conversation.seconds) for conversation in pair)
    lines += ["", f"The long session's turn takes {long / short:.2f} × that of the short one."]
    wrong = [f"{long / short:.2f} × is more than {LONG_COST} ×"] if long > LONG_COST * short else []
    return "\n".join(lines), wrong


def publish(heading: str, text: str) -> None:
    """Replace a section of `docs/benchmarks/load.md`."""
    page = DOCS / "load.md"
    parts = page.read_text("utf-8").split("\n## ")
    kept = [part for part in parts[1:] if not part.startswith(f"{heading}\n")]
    sections = sorted([*kept, f"{heading}\n\n{text}\n"])
    page.write_text("\n## ".join([parts[0], *(f"{part.rstrip()}\n" for part in sections)]), "utf-8")


def main() -> None:
    """Measure, print and publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("backend", metavar="BACKEND", choices=BACKENDS)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=120, help="of load on each server, in all")
    parser.add_argument(
        "--minutes", type=int, default=0, help="a soak of the project's own sessions"
    )
    parser.add_argument("--long", action="store_true", help="turns of a long and a short session")
    arguments = parser.parse_args()
    backend, minutes = arguments.backend, arguments.minutes
    if arguments.long:
        heading = f"{backend}, a long session"
        text, wrong = asyncio.run(measure_long(backend))
    else:
        heading = f"{backend}, soak" if minutes else backend
        text, wrong = asyncio.run(measure(backend, arguments.people, arguments.seconds, minutes))
    print(text)
    publish(heading, text)
    for line in wrong:
        print(line, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
