"""`python -m benchmarks [--quick] BACKEND …` measures, and writes to `docs/benchmarks/`.

Whole turns come first, then single operations. The quick form takes a minute or two for each backend, writes
nothing, and fails if an append or a read of the last events is not flat, or if a turn, an append or a read
takes longer than ADK's own: ratios within one run, which a slow machine does not change.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from rich.console import Console

from . import operations, turns
from .projects import BACKENDS, LONGEST, bake, install
from .report import operation_goals, page, publish, turn_goals
from .rounds import progress


def main() -> None:
    """Measure the backends that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("backends", nargs="+", metavar="BACKEND", choices=[*BACKENDS, "all"])
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    console, quick = Console(stderr=True), arguments.quick
    broken = []
    for backend in BACKENDS if "all" in arguments.backends else arguments.backends:
        console.print(f"[bold]{backend}[/]: baking and installing")
        project = bake(backend)
        install(backend, project)
        forms = turns.QUICK if quick else turns.FULL, operations.QUICK if quick else operations.FULL
        if longest := LONGEST.get(backend):
            forms = forms[0].short(longest), forms[1].short(longest)
        with progress(console) as told:
            whole = asyncio.run(turns.measure_turns(backend, [project], forms[0], told))
            single = asyncio.run(operations.measure_operations(backend, project, forms[1], told))
        Console().print(page(whole, single), highlight=False, markup=False, soft_wrap=True)
        goals = [*turn_goals(whole), *operation_goals(single)]
        broken += [f"{backend}: {goal.what}: {goal}" for goal in goals if goal.value > goal.limit]
        if not quick:
            publish(whole, single)
    for line in broken:
        console.print(line, style="red", highlight=False, markup=False)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
