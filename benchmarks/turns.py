"""Whole turns: what a person waits for, beside the model.

    python -m benchmarks.turns BACKEND     measures a project that it bakes
    python -m benchmarks.turns BACKEND --project DIR --label eager --project DIR2 --label bytes
                                           compares projects that are there, in one run

Both print tables; `make bench` writes them to `docs/benchmarks/`.

A turn is one message given to ADK's `Runner`, whose model answers at once, until the answer is stored and
returned. Each contestant is a process of its own, and each project has a server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from .projects import (
    BACKENDS,
    Contestant,
    Project,
    bake,
    install,
    proxying,
    rivals,
    serving,
    through,
    working,
)
from .proxy import ADDRESS
from .report import AWAY, LOOPBACK, turn_tables
from .rounds import Form, Told, machine, measure, prepare, progress

RECENT = 50
"""How many events the turns of one variant read: what `num_recent_events` in a RunConfig is for."""
EACH_WAY = 0.0004
"""Seconds that the proxy waits in each direction; it takes about 0.1 ms itself, which makes 1 ms in all."""


FULL = Form((10, 100, 1_000, 5_000), rounds=100, budget=3.0, at_least=8)
QUICK = Form((10, 100, 1_000), rounds=12, budget=1.0, at_least=5)


def contestants(backend: str, projects: Sequence[Project], *, adk: bool) -> list[Contestant]:
    """Return ADK's own services, and each project in its variants."""
    everybody = rivals(backend, projects[0], adk=adk)
    for project in projects:
        name = project.label
        everybody += [
            Contestant(name, project),
            Contestant(f"{name}, turns=off", project, {"turns": "off"}),
            Contestant(f"{name}, cache_mb=0", project, {"cache_mb": 0}),
            Contestant(f"{name}, last {RECENT} events", project, recent=RECENT),
        ]
    return everybody


async def measure_turns(
    backend: str,
    projects: Sequence[Project],
    form: Form,
    told: Told,
    *,
    adk: bool = True,
    profiles: Path | None = None,
) -> dict[str, Any]:
    """Measure turns on loopback and, if the backend is reached over a network, 1 ms away."""
    everybody = contestants(backend, projects, adk=adk)
    for one in everybody if profiles else ():
        one.profile = f"{profiles}/{one.who}.prof"
    result: dict[str, Any] = {"backend": backend, "series": [], "memory, MB": {}}
    result["machine"] = machine()
    async with AsyncExitStack() as stack:
        uris = {p.label: await stack.enter_async_context(serving(backend, p)) for p in projects}
        proxy = await stack.enter_async_context(proxying())
        detours = {
            label: await through(proxy, backend, uri)
            for label, uri in uris.items()
            if ADDRESS.search(uri)
        }
        for network, ways in ((LOOPBACK, uris), (AWAY, detours)):
            if not ways:
                continue
            told(f"{network}: starting", 0, 1)
            async with working(backend, everybody, ways) as workers:
                result |= await workers[projects[0].label].call("about")
                cells = await prepare(workers, "turn", form, told)
                # Sessions are made without the delay; on loopback nobody comes through the proxy.
                await proxy.call("set_delay", seconds=EACH_WAY)
                counting = proxy if network == AWAY else None
                result["series"] += await measure(cells, form, told, network, counting)
                await proxy.call("set_delay", seconds=0)
                result["memory, MB"] |= {
                    who: await worker.call("memory") for who, worker in workers.items()
                }
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.turns",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("backend", metavar="BACKEND", choices=BACKENDS)
    parser.add_argument("--project", type=Path, action="append", default=[], help="a baked project")
    parser.add_argument("--label", action="append", default=[], help="the name of that project")
    parser.add_argument("--full", action="store_true", help="as thorough as what is published")
    parser.add_argument("--events", type=int, nargs="+", default=[], help="lengths of sessions")
    parser.add_argument("--skip-adk", action="store_true", help="leave out ADK's slower services")
    parser.add_argument("--json", type=Path, help="where to write all that was measured")
    parser.add_argument("--profile", type=Path, help="a folder for a cProfile of each contestant")
    arguments = parser.parse_args()
    backend, labels = arguments.backend, arguments.label
    if labels and len(set(labels)) != len(arguments.project):
        parser.error("give each --project a --label of its own")
    folders = zip(arguments.project, labels or ["ours"] * len(arguments.project), strict=True)
    projects = [Project(folder.resolve(), label) for folder, label in folders] or [bake(backend)]
    for project in projects:
        install(backend, project)
    form = FULL if arguments.full else QUICK
    if arguments.events:
        form = replace(form, lengths=tuple(arguments.events))
    with progress(Console(stderr=True)) as told:
        adk, profiles = not arguments.skip_adk, arguments.profile and arguments.profile.resolve()
        run = measure_turns(backend, projects, form, told, adk=adk, profiles=profiles)
        result = asyncio.run(run)
    Console().print(turn_tables(result), highlight=False, soft_wrap=True, markup=False)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
