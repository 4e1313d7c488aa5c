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


def usage(process: psutil.Process) -> tuple[float, float]:
    """Return the MB and the seconds of processor time of a process and its children so far."""
    try:
        all_of_it = (process, *process.children(recursive=True))
        times = [each.cpu_times() for each in all_of_it]
        memory = sum(each.memory_info().rss for each in all_of_it) / 1e6
    except psutil.Error:
        return 0.0, 0.0
    return memory, sum(each.user + each.system for each in times)


def copy(old: Project, before: str, new: Project, after: str) -> tuple[list[float], str]:
    """Copy all sessions, and return figures and what was said.

    The figures are the seconds, and the most MB and the seconds of processor time of each process.
    """
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
    most = [0.0] * 4
    while writing.poll() is None:
        now = (*usage(reading), *usage(writing))
        most = [max(pair) for pair in zip(most, now, strict=True)]
        time.sleep(0.2)
    if reading.wait() or writing.returncode:
        sys.exit(f"The copy failed: {writing.stderr.read()}")
    return [time.monotonic() - began, *most], writing.stderr.read()


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
        fill = [str(old.python), "-c", FILL, before, *scale]
        subprocess.run(fill, cwd=old.folder, check=True)
        async with serving("redis", new) as after:
            lines: list[str] = []
            within = True
            for what in ("a copy", "the same again, which copies nothing"):
                console.print(what)
                figures, said = await asyncio.to_thread(copy, old, before, new, after)
                console.print(said, highlight=False)
                counts = re.findall(r"Copied (\d+) sessions?, skipped (\d+) ", said)
                wanted = ("0", str(count)) if lines else (str(count), "0")
                if counts != [wanted]:
                    sys.exit(f"{wanted} were to be copied and skipped, and {counts} were.")
                within &= max(figures[1], figures[3]) < LIMIT
                cells = (what, *(f"{figure:,.0f}" for figure in figures))
                lines.append(f"| {' | '.join(cells)} |")
    return PAGE.format(
        count=count, events=EVENTS, limit=LIMIT, load=on["load before"], rows="\n".join(lines), **on
    ), within


PAGE = """\
# Sessions on the move

{began}, {system}, {processor}, {cores} cores (load before: {load}). {count:,} sessions with {events} events each, from SQLite
to Redis, through the pipe of the README's "Change the database": `sessions export --all | sessions import -`. Memory is the
most that each process had, with its children, and may be {limit} MB. `make moving WHAT=large` writes this page.

| | seconds | export: MB | processor seconds | import: MB | processor seconds |
|---|--:|--:|--:|--:|--:|
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
