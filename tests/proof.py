"""`python -m tests.proof` bakes every backend, runs its tests, and writes docs/proof.md from the results.

Arguments select backends. `redis-cluster` is the backend `redis` on another kind of server. PROOF=long runs
the long form of each test.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from .baking import BACKENDS, ROOT, bake
from .installed import SCHEME, Project

PROMISES = """
    contract turns turns_at_once rollout events codec readers isolation oracle persistence cache processes
    expiry poison faults uri
""".split()
"""The test modules of the promises that every backend keeps."""

ONCE = {"cache", "codec", "events", "faults", "readers", "rollout", "uri"}
"""Modules that are not run on other kinds of servers: a proxy cannot front a cluster, and the others would
only repeat what the first server has shown."""

RESULTS = ROOT / "docs" / "proof.json"
PAGE = ROOT / "docs" / "proof.md"

HEAD = """\
# What was tested, and on which servers

`make proof` writes this page from the results of the projects' tests. Do not edit it. Failed and skipped
tests are shown.

| | {titles} |
|---|{lines}|
"""


def promises(tests: Path, *, but: Iterable[str] = ()) -> list[Path]:
    """Return the paths of a project's test modules in `PROMISES`."""
    found = {path.stem.removeprefix("test_"): path for path in tests.glob("*/test_*.py")}
    return [found[name] for name in PROMISES if name in found and name not in but]


@dataclass(frozen=True)
class Outcome:
    """The results of a backend's tests, as stored in `proof.json`."""

    title: str
    form: str
    """`bounded`, as in `make test`, or `long`."""
    server: str
    versions: list[str]
    promises: dict[str, str]
    """The first line of each module's docstring."""
    modules: dict[str, dict[str, int]]
    """The numbers of tests that passed, failed or were skipped, by module."""
    figures: dict[str, dict[str, int]]
    """The figures that tests have recorded, by test and name."""


def columns() -> dict[str, tuple[str, str]]:
    """Return backend and kind of server by their name in `make proof`."""
    found = {}
    for backend, row in BACKENDS.items():
        for kind in ("", *row.get("other_servers", ())):
            found[f"{backend}-{kind}" if kind else backend] = backend, kind
    return found


def run(backend: str, kind: str, folder: Path) -> Outcome:
    """Bake and test one backend on one kind of server."""
    project = Project(bake(folder, backend=backend, scheme=SCHEME, proof="yes"), backend)
    project.make("setup")
    tests = project.folder / "tests"
    paths = promises(tests, but=ONCE if kind else ())
    report = project.folder / "report.xml"
    arguments = f"-q -o junit_family=xunit1 --junitxml={report} {' '.join(map(str, paths))}"
    given = [f"TEST_SERVER={kind}"] if kind else []
    status, said = project.run("env", *given, "make", "test", f"ARGS={arguments}")
    print(said if status else f"{backend} {kind}: {said.splitlines()[-1]}", file=sys.stderr)
    modules: dict[str, Counter[str]] = {}
    figures: dict[str, dict[str, int]] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314
        module = case.get("classname", "").split(".")[2].removeprefix("test_")
        bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        modules.setdefault(module, Counter())[bad[0] if bad else "passed"] += 1
        for figure in case.iter("property"):
            counted = figures.setdefault(case.get("name", ""), {})
            counted[figure.get("name", "")] = int(figure.get("value", 0))
    return Outcome(
        f"{project.row['title']}{f', {kind}' if kind else ''}",
        "long" if os.environ.get("PROOF") == "long" else "bounded",
        _first_sentence(tests / "servers" / f"{project.row['store']['module']}.py"),
        _versions(project),
        {path.stem.removeprefix("test_"): _first_sentence(path) for path in paths},
        {name: dict(counts) for name, counts in modules.items()},
        figures,
    )


def _first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.partition("\n")[0]


def _versions(project: Project) -> list[str]:
    """Return the versions of Python, and of the packages of ADK, the driver and the server."""
    row = project.row
    wanted = ["google-adk", *row["dependencies"], *row["test_dependencies"]]
    names = {_name(requirement) for requirement in wanted}
    lock = tomllib.loads((project.folder / "uv.lock").read_text("utf-8"))
    _, python = project.run(project.tool("python"), "--version")
    return [
        python.strip(),
        *(
            f"{package['name']} {package['version']}"
            for package in lock["package"]
            if package["name"] in names
        ),
    ]


def _name(requirement: str) -> str:
    for at, letter in enumerate(requirement):
        if not (letter.isalnum() or letter in "-_."):
            return requirement[:at].lower()
    return requirement.lower()


def page(outcomes: list[Outcome]) -> str:
    """Return the text of docs/proof.md."""
    titles = " | ".join(outcome.title for outcome in outcomes)
    text = HEAD.format(titles=titles, lines="|".join("---" for _ in outcomes))
    promises = {name: text for outcome in outcomes for name, text in outcome.promises.items()}
    for module in filter(promises.__contains__, PROMISES):
        promise = promises[module]
        cells = [_cell(outcome.modules.get(module)) for outcome in outcomes]
        text += f"| {promise.rstrip('.')} (`test_{module}.py`) | {' | '.join(cells)} |\n"
    text += (
        "\nThe numbers are passed tests. A dash means that there is no network, or that a proxy cannot be"
        " used.\n\n## Figures\n\n"
        f"| | {titles} |\n|---|{'|'.join('--:' for _ in outcomes)}|\n"
    )
    names = dict.fromkeys(
        (test, what) for o in outcomes for test, counted in o.figures.items() for what in counted
    )
    for test, what in names:
        found = [outcome.figures.get(test, {}).get(what) for outcome in outcomes]
        cells = ["–" if count is None else f"{count:,}" for count in found]
        words = test.removeprefix("test_").replace("_", " ")
        text += f"| {words}: **{what}** | {' | '.join(cells)} |\n"
    text += "\n## Servers\n\n"
    for outcome in outcomes:
        text += (
            f"- **{outcome.title[:1].upper()}{outcome.title[1:]}**, in the {outcome.form} form:"
            f" {outcome.server} ({', '.join(outcome.versions)})\n"
        )
    return f"{text}\n`tests/test_peers.py` tests ADK's own services.\n"


def _cell(results: dict[str, int] | None) -> str:
    if results is None:
        return "–"
    bad = [f"**{count} {what}**" for what, count in results.items() if what != "passed"]
    return ", ".join([str(results.get("passed", 0)), *bad])


def main(names: list[str]) -> int:
    """Run the named columns, or all, and write the page. Return the exit status.

    The other columns keep the results of their last run.
    """
    known = columns()
    if unknown := [name for name in names if name not in known]:
        print(f"{', '.join(unknown)}: choose among {', '.join(known)}.", file=sys.stderr)
        return 2
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    bad = False
    for name in names or known:
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(*known[name], Path(folder))
        bad |= any(set(counts) != {"passed"} for counts in outcome.modules.values())
        results[name] = asdict(outcome)
        results = {name: results[name] for name in known if name in results}
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
        PAGE.write_text(page([Outcome(**fields) for fields in results.values()]), "utf-8")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
