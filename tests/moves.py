"""`python -m tests.moves adk|pairs|dumps` moves sessions between all databases, and writes docs/moving.md.

adk     sessions of ADK's own services arrive on our backends, from copies that are killed again and again
pairs   every backend's export is imported by every backend
dumps   a search for a planted mark in a dump of each database

Every backend is baked and served by its own test server. Results are kept in docs/moving.json, so the page has those
of earlier runs as well.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .baking import BACKENDS, ROOT, bake
from .installed import Project

SCRIPT = Path(__file__).with_name("moving.py")
RESULTS = ROOT / "docs" / "moving.json"
PAGE = ROOT / "docs" / "moving.md"
DRIVERS = ("sqlalchemy[asyncio]>=2,<3", "redis>=6.2,<9", "pymongo>=4.15.2,<5")
"""What ADK's services need."""

SOURCES = {
    "sqlite": ("SqliteSessionService", "sqlite", "sqlite:///{data}/adk.db"),
    "sql": ("DatabaseSessionService", "sqlite", "sqlite+aiosqlite:///{data}/tables.db"),
    "sql-v0": (
        "DatabaseSessionService, schema v0",
        "sqlite",
        "v0+sqlite+aiosqlite:///{data}/v0.db",
    ),
    "redis": ("RedisSessionService", "redis", "adk+{uri}"),
    "mongodb": ("MongoDbSessionService", "mongodb", "adk+{uri}"),
}
"""ADK's services: their class, the backend whose project fills them, and their URI."""

PATIENT = {"mongodb": "timeoutMS=60000", "dynamodb": "timeout=60", "gcs": "timeout=60"}
"""Options for the slow servers of tests, which many sessions that are copied at once keep busy."""

KILLED = """
import sys
from contextlib import nullcontext
from rich.console import Console
from {package}.sessions.commands.cli import sessions

class Lines:
    def update(self, text):
        print(text, file=sys.stderr, flush=True)

Console.status = lambda self, text: nullcontext(Lines())
sessions()
"""
"""A command whose progress is a line for each session."""

Call = Callable[..., Any]
"""Calls a function of `moving.py`."""
Facts = dict[str, Any]
Move = tuple[str, Callable[[], Facts]]
"""What is moved where, and the function that does it and raises AssertionError if anything is lost."""


@contextmanager
def mover(project: Project, *prefix: str) -> Iterator[Call]:
    """Run `moving.py` in a project."""
    environment = ("env", f"PYTHONPATH={project.folder}", *(prefix or (project.tool("python"),)))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (project.folder / "moving.log").open("w") as log:
        process = project.start(*environment, str(SCRIPT), stderr=log, **pipes)
    with process:
        assert process.stdin
        assert process.stdout
        reading, writing = process.stdout, process.stdin

        def call(name: str, *arguments: object) -> Any:
            print(json.dumps([name, *arguments]), file=writing, flush=True)
            line = reading.readline()
            assert line, Path(log.name).read_text("utf-8")
            return json.loads(line)

        yield call


class Movers:
    """Backends that are baked and served, each with its `moving.py`."""

    def __init__(self, folder: Path, chosen: Sequence[str], backends: Iterable[str]) -> None:
        """Prepare the given backends. Projects that are in the folder already are used as they are."""
        self.folder, self.chosen = folder, chosen
        self.projects: dict[str, Project] = {}
        self.calls: dict[str, Call] = {}
        self.uris: dict[str, str] = {}
        self._stack = ExitStack()
        for backend in backends:
            out = folder / backend
            if not out.exists():
                project = Project(bake(out, backend=backend, proof="yes"), backend)
                project.make("setup")
                project.run("uv", "pip", "install", "--quiet", *DRIVERS)
            self.projects[backend] = Project(next(out.iterdir()), backend)

    def __enter__(self) -> Movers:
        """Start all servers."""
        for backend, project in self.projects.items():
            data = self._stack.enter_context(TemporaryDirectory())
            self.calls[backend] = self._stack.enter_context(mover(project))
            self.uris[backend] = self.calls[backend]("start", data)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        self._stack.close()


def kill(project: Project, arguments: Sequence[str], sessions: int) -> None:
    """Run a command of `sessions`, and kill it once it has done so many sessions."""
    code = KILLED.format(package=project.package)
    command = (project.tool("python"), "-c", code, *arguments)
    with project.start(*command, stderr=subprocess.PIPE) as process:
        assert process.stderr
        line = ""
        for line in process.stderr:
            done = re.match(r"(\d+) sessions so far", line)
            if done and int(done[1]) >= sessions:
                process.kill()
    assert process.returncode < 0, f"the copy ended before it was killed: {line}"


def differences(before: dict[str, Any], after: dict[str, Any], *kinds: str) -> list[str]:
    """Return what is not the same."""
    found = []
    for kind in kinds:
        one, other = before[kind], after[kind]
        if not isinstance(one, dict):
            one, other = {"": one}, {"": other}
        found += [
            f"{kind} {name}: {one.get(name)} became {other.get(name)}"
            for name in sorted(one.keys() | other.keys())
            if one.get(name) != other.get(name)
        ]
    return found


def copied(call: Call, source: str, target: str, before: dict[str, Any], *, partly: bool) -> None:
    """Copy sessions of ADK, and check that all are there, and that a repetition copies none."""
    count = len(before["sessions"])
    arguments = ("copy", "--from", source, "--to", target, "--ttl", "0", "--verify")
    status, said = call("command", *arguments)
    done = re.search(r"Copied (\d+) sessions?, skipped (\d+) ", said)
    assert status == 0, said
    assert done, said
    assert int(done[1]) + int(done[2]) == count, said
    assert partly or done[2] == "0", said
    status, said = call("command", *arguments)
    assert f"Copied 0 sessions, skipped {count} " in said, said
    after = call("read", target)
    after["users"] = {"gone": after["users"].get("gone")}
    assert not (found := differences(before, after, "sessions", "users")), found[:3]


def adk(movers: Movers, sources: Sequence[str], sessions: int, kills: int) -> Iterator[Move]:
    """Yield copies of each service of ADK to each backend."""
    for name in sources:
        title, backend, uri = SOURCES[name]
        with TemporaryDirectory() as data:
            source = uri.format(data=data, uri=movers.uris.get(backend, ""))
            before = movers.calls[backend]("fill_adk", source, sessions)
            source = source.removeprefix("v0+")
            for target in movers.chosen:
                work = partial(copy_killed, movers, source, target, before, kills)
                yield f"{title} → {target}", work


def copy_killed(
    movers: Movers, source: str, target: str, before: dict[str, Any], kills: int
) -> Facts:
    """Copy sessions of ADK, kill the copy at equal distances, finish it and compare."""
    sessions = before["sessions"].values()
    own = movers.calls[target]("namespace", movers.uris[target])
    if option := PATIENT.get(target):
        own += f"{'&' if '?' in own else '?'}{option}"
    arguments = ("copy", "--from", source, "--to", own, "--ttl", "0")
    for number in range(1, kills + 1):
        kill(movers.projects[target], arguments, number * len(sessions) // (kills + 2))
    copied(movers.calls[target], source, own, before, partly=kills > 0)
    events = sum(len(session["events"]) for session in sessions)
    return {"sessions": len(sessions), "events": events, "kills": kills}


def pairs(movers: Movers) -> Iterator[Move]:
    """Yield imports of each backend's export by each backend."""
    for origin in movers.chosen:
        call = movers.calls[origin]
        own = call("namespace", movers.uris[origin])
        call("fill", own)
        before = call("read", own)
        lines = str(movers.folder / f"{origin}.jsonl")
        status, said = call("export", own, lines)
        before["damaged"] = len(said.splitlines()) - 1
        assert status == 1, said
        assert f"Error: {before['damaged']} of the records could not be exported." in said, said
        assert before["damaged"] == before["unreadable"] + 2, said  # and two values
        for target in movers.chosen:
            yield f"{origin} → {target}", partial(import_all, movers, target, lines, before)


def import_all(movers: Movers, target: str, lines: str, before: dict[str, Any]) -> Facts:
    """Import exported lines twice, and compare."""
    call, sessions = movers.calls[target], len(before["sessions"])
    own = call("namespace", movers.uris[target])
    for copied in (f"Copied {sessions} sessions, skipped 0 ", "Copied 0 sessions"):
        status, said = call("command", "import", "--verify", "--uri", own, lines)
        assert status == 0, said
        assert copied in said, said
    after = call("read", own)
    found = differences(before, after, "sessions", "ttls", "users", "app")
    assert not found, found[:3]
    assert after["unreadable"] == 0
    return {"sessions": sessions, "users": len(before["users"]), "damaged": before["damaged"]}


def dumps(movers: Movers) -> Iterator[Move]:
    """Yield searches in dumps of each database."""
    for backend in movers.chosen:
        yield backend, partial(search_dump, movers, backend)


def search_dump(movers: Movers, backend: str) -> Facts:
    """Return how often a mark is in a dump of a store, with keys and without."""
    own = movers.calls[backend]("namespace", movers.uris[backend])
    (folder := movers.folder / f"dump-{backend}").mkdir(exist_ok=True)
    counts: Facts = movers.calls[backend]("search_dump", own, str(folder))
    assert counts["clear"], f"the dump has not even the clear text: {counts}"
    assert not counts["encrypted"], counts
    return counts


HEAD = """\
# Sessions on the move

`make moving` writes this page. Do not edit it. Databases are the servers of the projects' tests, so times compare only with
each other: the emulators of DynamoDB and Cloud Storage and the stand-in for MongoDB are slow.
"""

SECTIONS = {
    "adk": """
## From ADK's services

Sessions are written by a service of ADK {adk}, and copied with `sessions copy --verify`. The copy is killed (SIGKILL) at
equal distances, and begun again. Then both services read all sessions, which must be equal, event by event, and a second
copy must find nothing to do. A cell has the sessions, the kills and the seconds of it all.
""",
    "pairs": """
## From any backend to any other

The exported lines of one backend are imported by another with `--verify`: sessions and state keys of hostile ids, with and
without TTL, and users of whom only state is left. Sessions, TTLs and state of all scopes must be equal, and a second import
must find nothing to do. The damaged records are two sessions, a value of a user and a value of the app. Each is named when it
is exported, and counted. A cell has the sessions, the users and the damaged records, and the seconds.
""",
    "dumps": """
## Dumps of encrypted stores

A mark is stored in events and in state of all scopes, once with `SESSION_KEYS` and once in clear text, and searched in
`.backup` and `.dump` (SQLite), `pg_dump`, `DUMP` and RDB (Redis), BSON (MongoDB), a scan (DynamoDB), all objects with
metadata (Cloud Storage) and the journal (custom). Binary values are decoded and decompressed before. A cell has how often it
was found.
""",
}


def cells_of(name: str, facts: Facts) -> dict[str, str]:
    """Return what the row of a move says, by column."""
    if "clear" in facts:
        return {"with keys": f"{facts['encrypted']}", "in clear text": f"{facts['clear']}"}
    counts = [facts[key] for key in ("sessions", "kills", "users", "damaged") if key in facts]
    counted = ", ".join(f"{count:,}" for count in counts)
    return {name.partition(" → ")[2]: f"{counted} ({facts['seconds']:,.0f} s)"}


def page(results: dict[str, Any]) -> str:
    """Return the text of docs/moving.md."""
    text = HEAD
    for kind, head in SECTIONS.items():
        cells: dict[str, dict[str, str]] = {}
        found: dict[str, Facts] = results.get(kind, {})
        if not found:
            continue
        for name, facts in found.items():
            cells.setdefault(name.partition(" → ")[0], {}).update(cells_of(name, facts))
        filled = {column for row in cells.values() for column in row}
        columns = [name for name in (*BACKENDS, "with keys", "in clear text") if name in filled]
        text += head.format(adk=results.get("version", ""))
        text += f"\n| | {' | '.join(columns)} |\n|---|{'--:|' * len(columns)}\n"
        for row, values in cells.items():
            text += f"| {row} | {' | '.join(values.get(name, '') for name in columns)} |\n"
        days = sorted({facts["when"] for facts in found.values()})
        text += f"\nRun on {', '.join(days)}.\n"
    return text


def publish(kind: str, name: str, facts: Facts, version: str) -> None:
    """Add facts to the page."""
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    results["version"] = version
    results.setdefault(kind, {})[name] = facts
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    PAGE.write_text(page(results), "utf-8")


def main() -> None:
    """Run what is asked for, and write the page after each step."""
    parser = argparse.ArgumentParser(prog="python -m tests.moves", description=__doc__)
    parser.add_argument("what", choices=SECTIONS)
    parser.add_argument("backends", nargs="*", metavar="BACKEND", help="all by default")
    parser.add_argument("--from", dest="sources", nargs="+", choices=SOURCES, default=[*SOURCES])
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="keeps the baked projects here")
    given = parser.parse_args()
    chosen = given.backends or list(BACKENDS)
    needed = {SOURCES[name][1]: None for name in given.sources} if given.what == "adk" else {}
    failed = []
    with TemporaryDirectory() as temporary:
        movers = Movers(
            given.folder or Path(temporary), chosen, [*dict.fromkeys([*needed, *chosen])]
        )
        with movers:
            version = movers.calls[chosen[0]]("adk_version")
            moves = {
                "adk": partial(adk, movers, given.sources, given.sessions, given.kills),
                "pairs": partial(pairs, movers),
                "dumps": partial(dumps, movers),
            }
            for name, work in moves[given.what]():
                began = time.monotonic()
                try:
                    facts = work()
                except AssertionError as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    failed.append(name)
                    continue
                facts["seconds"] = round(time.monotonic() - began, 1)
                facts["when"] = f"{datetime.now(UTC):%Y-%m-%d}"
                print(name, facts, flush=True)
                publish(given.what, name, facts, version)
    sys.exit(f"Failed: {', '.join(failed)}." if failed else 0)


if __name__ == "__main__":
    main()
