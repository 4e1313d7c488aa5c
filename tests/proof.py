"""`python -m tests.proof` bakes every backend, runs its tests, and writes docs/proof.md from the results.

Name backends to run only these. PROOF=long runs the long form of each test.
"""

from __future__ import annotations

import ast
import os
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .baking import BACKENDS, ROOT, bake
from .installed import SCHEME, Project

PROMISES = """
    contract events isolation oracle persistence processes warm expiry poison faults uri
""".split()
"""The test modules that say what is promised of sessions, whatever they are kept in."""

HEAD = """\
# What was proven, and on what

Written by `make proof` from the results of the tests that every project carries with it; do not edit.
{form} A test that fails, or is not run, would show here as such.

| | {titles} |
|---|{lines}|
"""


@dataclass(frozen=True)
class Outcome:
    """What the tests of one backend came to."""

    modules: dict[str, Counter[str]]
    """Of each module how many tests passed, failed or were skipped."""
    promises: dict[str, str]
    """The first sentence of each module."""
    figures: dict[tuple[str, str], int]
    """What tests have counted, by test and name."""
    server: str
    versions: list[str]


def run(backend: str, folder: Path) -> Outcome:
    """Bake and test one backend."""
    project = Project(bake(folder, backend=backend, scheme=SCHEME), backend)
    project.make("setup")
    tests = project.folder / "tests"
    paths = [path for name in PROMISES if (path := tests / f"test_{name}.py").exists()]
    report = folder / "report.xml"
    results = ("-o", "junit_family=xunit1", f"--junitxml={report}")
    command = (project.tool("pytest"), "-q", *results, *map(str, paths))
    status, said = project.run(*command)
    print(said if status else f"{backend}: {said.splitlines()[-1]}", file=sys.stderr)
    modules: dict[str, Counter[str]] = {}
    figures: dict[tuple[str, str], int] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314
        module = case.get("classname", "").split(".")[1].removeprefix("test_")
        bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        modules.setdefault(module, Counter())[bad[0] if bad else "passed"] += 1
        for figure in case.iter("property"):
            name = (case.get("name", ""), figure.get("name", ""))
            figures[name] = int(figure.get("value", 0))
    return Outcome(
        modules,
        {path.stem.removeprefix("test_"): _first_sentence(path) for path in paths},
        figures,
        _first_sentence(tests / "servers" / f"{BACKENDS[backend]['store']['module']}.py"),
        _versions(project),
    )


def _first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.partition("\n")[0]


def _versions(project: Project) -> list[str]:
    """Return what was installed of ADK, the driver and the server."""
    row = project.row
    wanted = ["google-adk", *row["dependencies"], *row["test_dependencies"]]
    names = {_name(requirement) for requirement in wanted}
    lock = tomllib.loads((project.folder / "uv.lock").read_text("utf-8"))
    return [
        f"{package['name']} {package['version']}"
        for package in lock["package"]
        if package["name"] in names
    ]


def _name(requirement: str) -> str:
    for at, letter in enumerate(requirement):
        if not (letter.isalnum() or letter in "-_."):
            return requirement[:at].lower()
    return requirement.lower()


def table(outcomes: dict[str, Outcome]) -> str:
    """Return the page."""
    long = os.environ.get("PROOF") == "long"
    text = HEAD.format(
        form="It is the long form." if long else "It is the bounded form of `make test`.",
        titles=" | ".join(BACKENDS[backend]["title"] for backend in outcomes),
        lines="|".join("---" for _ in outcomes),
    )
    for module in PROMISES:
        promise = next(o.promises[module] for o in outcomes.values() if module in o.promises)
        cells = [_cell(outcome.modules.get(module)) for outcome in outcomes.values()]
        text += f"| {promise.rstrip('.')} (`test_{module}.py`) | {' | '.join(cells)} |\n"
    text += (
        "\nThe numbers are tests that passed; a dash stands where there is no network between.\n"
    )
    text += "\n## What was counted\n\n| | " + " | ".join(
        BACKENDS[backend]["title"] for backend in outcomes
    )
    text += " |\n|---|" + "|".join("--:" for _ in outcomes) + "|\n"
    for name in dict.fromkeys(name for outcome in outcomes.values() for name in outcome.figures):
        test, what = name
        words = test.removeprefix("test_").replace("_", " ")
        counts = [f"{o.figures[name]:,}" if name in o.figures else "–" for o in outcomes.values()]
        text += f"| {words}: **{what}** | {' | '.join(counts)} |\n"
    text += "\n## What it was run against\n\n"
    for backend, outcome in outcomes.items():
        title = BACKENDS[backend]["title"]
        text += f"- **{title[:1].upper()}{title[1:]}**: {outcome.server} ({', '.join(outcome.versions)})\n"
    python = ".".join(map(str, sys.version_info[:3]))
    text += f"\nPython {python} on {sys.platform}. What is said of ADK's own services is in `tests/test_peers.py`.\n"
    return text


def _cell(results: Counter[str] | None) -> str:
    if results is None:
        return "–"
    bad = [f"**{count} {what}**" for what, count in results.items() if what != "passed"]
    return ", ".join([str(results["passed"]), *bad])


def main(backends: list[str]) -> int:
    """Run the backends and write the page; the exit status says whether all is well."""
    outcomes = {}
    for backend in backends or BACKENDS:
        with tempfile.TemporaryDirectory() as folder:
            outcomes[backend] = run(backend, Path(folder))
    (ROOT / "docs" / "proof.md").write_text(table(outcomes), "utf-8")
    results = sum((sum(o.modules.values(), Counter()) for o in outcomes.values()), Counter[str]())
    return int(set(results) != {"passed"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
