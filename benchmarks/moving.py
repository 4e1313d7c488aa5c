"""`python -m benchmarks.moving [--sessions N]` copies sessions from SQLite to Redis as the README says, through a pipe.

It measures the time and the memory of both processes, and writes docs/benchmarks/moving.md.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from rich.console import Console

from .projects import Project, bake, install, serving
from .report import DOCS
from .rounds import machine

EVENTS = 3
OF_A_USER = 50
LIMIT = 200
"""MB that each process may take."""

FILL = """
import asyncio, secrets, sys
from google.adk.events import Event, EventActions
from google.genai import types
from my_agent.sessions import create_session_service
from my_agent.sessions.codec import encode_state
from my_agent.sessions.commands.transfer import encode
from my_agent.sessions.store import ScopedState, SessionKey

async def main(uri, count, events, of_a_user):
    said = types.Content(role="user", parts=[types.Part(text="What is the weather like? " * 5)])
    async with create_session_service(uri) as service:
        for number in range(count):
            user = f"user-{number // of_a_user}"
            key = SessionKey("my_agent", user, f"s{number}")
            state = ScopedState(session=encode_state({"n": number}), user=encode_state({"last": number}))
            record = await service.store.create(
                key, incarnation=secrets.token_hex(8), state=state, now=1.7e9, ttl=0
            )
            position = record.head.position
            for turn in range(events):
                actions = EventActions(state_delta={"turn": turn})
                event = Event(author="user", timestamp=1.7e9 + turn, content=said, actions=actions)
                head = await service.store.append(
                    key,
                    expected=position,
                    event=encode(event),
                    timestamp=event.timestamp,
                    state=ScopedState(session=encode_state({"turn": turn})),
                    now=1.7e9 + turn,
                )
                position = head.position

asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
"""


def memory(process: psutil.Process) -> float:
    """Return the MB of a process and its children."""
    try:
        return float(sum(p.memory_info().rss for p in (process, *process.children(True)))) / 1e6
    except psutil.Error:
        return 0.0


def copy(old: Project, before: str, new: Project, after: str) -> tuple[float, list[float], str]:
    """Copy all sessions, and return the seconds, the most MB of the two processes, and what was said."""
    sessions = ("-m", "my_agent", "sessions")
    began = time.monotonic()
    reading = psutil.Popen(
        [old.python, *sessions, "export", "--all", "--uri", before],
        cwd=old.folder,
        stdout=subprocess.PIPE,
    )
    writing = psutil.Popen(
        [new.python, *sessions, "import", "-", "--uri", after],
        cwd=new.folder,
        stdin=reading.stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    reading.stdout.close()
    most = [0.0, 0.0]
    while writing.poll() is None:
        most = [max(pair) for pair in zip(most, map(memory, (reading, writing)), strict=True)]
        time.sleep(0.2)
    if reading.wait() or writing.returncode:
        sys.exit(f"The copy failed: {writing.stderr.read()}")
    return time.monotonic() - began, most, writing.stderr.read()


async def measure(count: int) -> tuple[str, bool]:
    """Return a page, and whether memory stayed within the limit."""
    console = Console(stderr=True)
    projects = {backend: bake(backend) for backend in ("sqlite", "redis")}
    for backend, project in projects.items():
        install(backend, project)
    old, new = projects.values()
    on = machine()
    with TemporaryDirectory(dir=old.folder.parent) as folder:
        before = f"local:///{Path(folder).absolute()}/sessions.db"
        console.print(f"writing {count:,} sessions")
        scale = map(str, (count, EVENTS, OF_A_USER))
        fill = [old.python, "-c", FILL, before, *scale]
        await asyncio.to_thread(subprocess.run, fill, cwd=old.folder, check=True)
        async with serving("redis", new) as after:
            lines, within = [], True
            for what in ("a copy", "the same again, which copies nothing"):
                console.print(what)
                seconds, most, said = await asyncio.to_thread(copy, old, before, new, after)
                console.print(said, highlight=False)
                counts = re.findall(r"Copied (\d+) sessions?, skipped (\d+) ", said)
                wanted = ("0", str(count)) if lines else (str(count), "0")
                if counts != [wanted]:
                    sys.exit(f"{wanted} were to be copied and skipped, and {counts} were.")
                within &= max(most) < LIMIT
                lines.append(
                    f"| {what} | {seconds:,.0f} | {count / seconds:,.0f} | {most[0]:.0f} | {most[1]:.0f} |"
                )
    return PAGE.format(count=count, events=EVENTS, rows="\n".join(lines), **on), within


PAGE = """\
# Sessions on the move

{began}, {system}, {processor}, {cores} cores. {count:,} sessions with {events} events each, from SQLite to Redis, through the
pipe of the README's "Change the database": `sessions export --all | sessions import -`. Memory is the most that each process
had, with its children. `make moving` writes this page.

| | seconds | sessions a second | export, MB | import, MB |
|---|--:|--:|--:|--:|
{rows}
"""


def main() -> None:
    """Measure, print and publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moving", description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    text, within = asyncio.run(measure(parser.parse_args().sessions))
    print(text)
    (DOCS / "moving.md").write_text(text, "utf-8")
    sys.exit(0 if within else 1)


if __name__ == "__main__":
    main()
