"""`python -m tests.mutants` changes the code in one place at a time, and writes which changes no test notices.

It bakes and installs the SQLite project, tries the changes, and writes docs/mutants.md. Name files to try
only these; `--survivors` tries only what survived the last time.

Why this and not a tool: mutmut 3.8 ended before its first change, because pytest did not find two of our
tests by the ids that it was given; it also leaves out decorated functions and what is outside of functions,
where SQL and the table of types are. cosmic-ray 8.7 changes annotations and the `*` of parameters too
(`str | None` becomes `str + None`): the import notices, and the score is flattered. It knows no SQL, and
starts an interpreter and ADK for each change.
"""

from __future__ import annotations

import ast
import datetime as dt
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.progress import track

from .baking import ROOT, bake
from .installed import SCHEME, Project
from .proof import _versions

AT_MOST = 90
"""Changes that are tried of a file; of more, a sample that is always the same."""
SEED = 4
LEFT_OUT = "not in_memory and not many_that_start_together"
"""ADK's own service, and a test of several processes that takes longer than all others together."""
HANGS_AFTER = 12.0
"""Seconds; the longest test takes two."""
RESULTS = ROOT / "docs" / "mutants.json"
PAGE = ROOT / "docs" / "mutants.md"
GUIDE = ROOT / "CONTRIBUTING.md"
RUNNER = ROOT / "tests" / "mutants_forked.py"

FILES = {
    "service.py": "persistence contract expiry poison events sqlite",
    "codec.py": "events poison contract persistence",
    "values.py": "events poison contract",
    "stores/sqlite.py": "contract expiry persistence poison sqlite",
}
"""What is changed, and the test modules that are to notice, those that notice most first."""

ANY_TEXT = "only the other names are checked here, and any text is a good one"
EQUIVALENT = {
    "service.py: mark=secrets.token_hex(9),": "as random, and longer",
    'service.py: _key(app_name, user_id or "other", "")': ANY_TEXT,
    'service.py: _key(app_name, user_id or "", "other")': ANY_TEXT,
    'service.py: _key(app_name, user_id, "other")': ANY_TEXT,
    "service.py: found = await self._find(key, Position(expected.mark, known - 2), event.id, data)": (
        "looks one event further back, and finds the same"
    ),
    "service.py: return _session(stored, Events(wanted, position.revision + first), log.revisions)": (
        "what a filter lets through is a copy, and ends where it ends"
    ),
    'service.py: logger.info("other", event_id, _name(key))': "the words of a log",
    "service.py: pass instead of await self.store.prepare()": (
        "SQLite's store needs no preparation"
    ),
    "codec.py: if event.actions or event.actions.state_delta:": (
        "an event always has actions, and a copy of them without state equals them"
    ),
    "stores/sqlite.py: MOST_AT_ONCE = 65": "one write more is committed together",
    "stores/sqlite.py: if gone <= PURGE_BATCH:": "what is left of a backlog goes a second later",
    'stores/sqlite.py: pass instead of db.execute("PRAGMA busy_timeout = 10000")': (
        "Python's own time-out, five seconds, holds then"
    ),
    'stores/sqlite.py: if {"sessions", "events", "app_states", "user_states"} < tables': (
        "ADK's database has more tables than these"
    ),
}
"""Changes that survive and change no promise: file and changed line, and the reason."""

SWAPS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.LShift: ("<<", ">>"),
}
IS_SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|WHERE|CREATE|PRAGMA|BEGIN|expires_at)\b")
SQL = [
    (r" AND (?!\?)", " OR "),
    (r" OR (?!REPLACE)", " AND "),
    (r"(?<![<>-])> ", ">= "),
    (r"(?<![<>])< ", "<= "),
    (r"<= ", "< "),
    (r" DESC", ""),
    (r" ORDER BY place(?! DESC)", ""),
    (r"\bmax\(", "min("),
    (r" \+ ", " - "),
    (r" - 1", ""),
    (r"<< 32", "<< 31"),
    (r"IS NULL", "IS NOT NULL"),
    (r"IS NOT NULL", "IS NULL"),
    (r" IMMEDIATE", ""),
    (r"= WAL", "= DELETE"),
    (r" ON DELETE CASCADE", ""),
    (r" LIMIT 1", ""),
    (r"OR REPLACE", "OR IGNORE"),
    (r" BETWEEN", " NOT BETWEEN"),
    (r"= ON", "= OFF"),
    (r"COMMIT", "ROLLBACK"),
]


@dataclass(frozen=True)
class Mutant:
    """One change: bytes `start` to `end` of a file become `new`."""

    file: str
    line: int
    start: int
    end: int
    new: str
    before: str
    after: str
    """The line without and with the change, for people."""

    @property
    def name(self) -> str:
        """What `EQUIVALENT` calls it."""
        return f"{self.file}: {self.after}"


class Finder:
    """Finds what can be changed in a file."""

    def __init__(self, file: str, source: bytes) -> None:
        """Take a file and what is in it."""
        self.file = file
        self.source = source
        self.lines = [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.found: list[Mutant] = []

    def all(self) -> list[Mutant]:
        """Return every change once."""
        self._visit(ast.parse(self.source))
        return list({(each.start, each.end, each.new): each for each in self.found}.values())

    def _at(self, line: int, column: int) -> int:
        return self.lines[line - 1] + column

    def _span(self, node: Any) -> tuple[int, int]:
        return (
            self._at(node.lineno, node.col_offset),
            self._at(node.end_lineno, node.end_col_offset),
        )

    def _add(self, start: int, end: int, new: str) -> None:
        line = self.source.count(b"\n", 0, start) + 1
        first = self.lines[line - 1]
        last = self.source.find(b"\n", end)
        changed = (self.source[first:start] + new.encode() + self.source[end:last]).decode()
        before = self.source[first:last].decode()
        same = " ".join(changed.split())
        whole = " ".join(before.split())
        if new == "pass":
            same = f"pass instead of {whole}"
        self.found.append(Mutant(self.file, line, start, end, new, whole, same))

    def _replace(self, node: Any, new: str) -> None:
        self._add(*self._span(node), new)

    def _swap(self, left: Any, operator: ast.AST, right: Any) -> None:
        if type(operator) not in SWAPS:
            return
        old, new = SWAPS[type(operator)]
        start, end = self._span(left)[1], self._span(right)[0]
        words = re.escape(old).replace(r"\ ", r"\s+")
        if match := re.search(words, self.source[start:end].decode()):
            self._add(start + match.start(), start + match.end(), new)

    def _sql(self, node: Any) -> None:
        start, end = self._span(node)
        text = self.source[start:end].decode()
        if IS_SQL.search(text) and text.isascii():
            for pattern, new in SQL:
                for match in re.finditer(pattern, text):
                    self._add(start + match.start(), start + match.end(), new)

    def _negate(self, node: Any) -> None:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self._add(*self._span(node), self._text(node.operand))
        elif isinstance(node, ast.Name | ast.Attribute | ast.Call):
            self._replace(node, f"(not {self._text(node)})")

    def _text(self, node: Any) -> str:
        start, end = self._span(node)
        return self.source[start:end].decode()

    def _visit(self, node: Any, parent: Any = None) -> None:
        match node:
            case ast.AnnAssign(value=value):
                if value is not None:
                    self._visit(value, node)
                return  # types are mypy's to check
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                for child in (
                    *node.args.defaults,
                    *filter(None, node.args.kw_defaults),
                    *node.body,
                ):
                    self._visit(child, node)
                return
            case ast.ClassDef():
                for child in node.body:
                    self._visit(child, node)
                return
            case ast.JoinedStr():
                self._sql(node)
                return
            case ast.Raise() | ast.Assert():
                return  # what is said, and other tests look at
            case ast.Compare(left=left, ops=[operator, *_], comparators=[right, *_]):
                self._swap(left, operator, right)
            case ast.BoolOp(op=operator, values=[*values]):
                for left, right in pairwise(values):
                    self._swap(left, operator, right)
                for value in values:
                    self._negate(value)
            case ast.BinOp(left=left, op=operator, right=right):
                self._swap(left, operator, right)
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
                self._negate(test)
            case ast.Constant(value=bool() as value):
                self._replace(node, str(not value))
            case ast.Constant(value=int() | float() as value):
                self._replace(node, str(value + 1))
            case ast.Constant(value=str() as value):
                self._sql(node)
                if not isinstance(parent, ast.Expr | ast.Subscript) and not IS_SQL.search(value):
                    self._replace(node, '"other"')
                return
            case ast.Return(value=value) if value is not None:
                if not isinstance(value, ast.Constant):
                    self._replace(node, "return None")
            case ast.Continue() | ast.Break() | ast.AugAssign() | ast.Delete():
                self._replace(node, "pass")
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
                self._replace(node, "pass")
            case ast.Expr(value=ast.Call() | ast.Await()):
                self._replace(node, "pass")
        for child in ast.iter_child_nodes(node):
            self._visit(child, node)


class Forked:
    """The process in the project that tries mutants."""

    def __init__(self, project: Project) -> None:
        """Start it in a project."""
        self.project = project
        self.sessions = project.folder / project.package / "sessions"
        environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        temporary = project.folder / ".mutants"
        temporary.mkdir()
        environment |= {
            "HOME": str(temporary),
            "TMPDIR": str(temporary),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(temporary),
            "PYTHONDONTWRITEBYTECODE": "1",  # two mutants of one length and second look alike
            "PYTHONPATH": str(project.folder),
        }
        self.process = subprocess.Popen(
            [project.tool("python"), str(RUNNER)],
            cwd=project.folder,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._answer()

    def _answer(self) -> str:
        assert self.process.stdout
        answer = self.process.stdout.readline().strip()
        assert answer, "the runner ended"
        return answer

    def attempt(self, file: str, seconds: float) -> str:
        """Run the tests that are to notice a change of a file."""
        tests = [f"tests/test_{name}.py" for name in FILES[file].split()]
        options = ["-x", "-q", "-k", LEFT_OUT, "-p", "no:cacheprovider"]
        assert self.process.stdin
        print(
            json.dumps([[*options, "--hypothesis-seed=0", *tests], seconds]),
            file=self.process.stdin,
            flush=True,
        )
        return self._answer()

    def mutated(self, mutant: Mutant, seconds: float) -> str:
        """Say how the tests end with a change."""
        path = self.sessions / mutant.file
        source = path.read_bytes()
        path.write_bytes(source[: mutant.start] + mutant.new.encode() + source[mutant.end :])
        try:
            return self.attempt(mutant.file, seconds)
        finally:
            path.write_bytes(source)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def sample(file: str, source: bytes) -> tuple[list[Mutant], int]:
    """Return the changes to try of a file, and how many there are."""
    found = []
    for mutant in Finder(file, source).all():
        try:
            ast.parse(source[: mutant.start] + mutant.new.encode() + source[mutant.end :])
        except SyntaxError:
            continue
        found.append(mutant)
    if len(found) <= AT_MOST:
        return found, len(found)
    chosen = random.Random(SEED).sample(found, AT_MOST)
    return sorted(chosen, key=lambda mutant: mutant.start), len(found)


def measure(forked: Forked, file: str, before: dict[str, Any] | None) -> dict[str, Any]:
    """Try the changes of one file, or those that survived before, and return what came of each."""
    source = (forked.sessions / file).read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    mutants, all_of_them = sample(file, source)
    ended = forked.attempt(file, HANGS_AFTER)
    if ended != "survived":
        raise SystemExit(f"The tests of {file} fail without a change already ({ended}).")
    outcomes: dict[str, str] = {}
    if before and before["digest"] == digest and before["tried"] == len(mutants):
        outcomes = {str(at): "killed" for at in range(len(mutants))}
        outcomes |= {str(each["at"]): "again" for each in before["left"]}
    for at, mutant in track(list(enumerate(mutants)), file):
        if outcomes.get(str(at)) != "killed":
            outcomes[str(at)] = forked.mutated(mutant, HANGS_AFTER)
    left = [
        {"at": at, "outcome": outcomes[str(at)], **asdict(mutant)}
        for at, mutant in enumerate(mutants)
        if outcomes[str(at)] != "killed"
    ]
    return {"digest": digest, "all": all_of_them, "tried": len(mutants), "left": left}


def page(results: dict[str, Any]) -> str:
    """Return the text of docs/mutants.md."""
    text = (
        "# Which changes of the code no test notices\n\n"
        "Written by `make mutants`; do not edit. The code that every project gets is changed in one place at"
        " a time\n(a comparison, a number, a piece of SQL, a statement left out), and the project's tests are"
        " run on it. A change\nthat a test fails on is killed.\n\n"
        "| | changes | tried | killed | survived | of these equivalent | timed out | score |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    total: Counter[str] = Counter()
    for file, result in results["files"].items():
        counts = _counts(result)
        total += counts
        text += f"| `sessions/{file}` {_row(counts)}"
    text += f"| all {_row(total)}\n"
    text += (
        "The score is the killed among the killed and the survivors that are not equivalent. What timed"
        " out is in neither:\na loop that does not end says little of the tests. Of files with more than"
        f" {AT_MOST} changes so many are tried, drawn with the seed {SEED}. Left out are the tests of several"
        " processes,\nwhich take too long for this; survivors in what opens a file may be theirs to notice.\n\n"
        "Tests were added for those that survived the first run (it killed 62 of 90 in `service.py`, 30 of 35 in"
        " `codec.py`,\n78 of 86 in `values.py` and 71 of 90 in `stores/sqlite.py`), so of changes outside of a sample more may go unnoticed than"
        " the score says.\n\n"
        f"{results['date']}, {results['versions']}.\n"
    )
    for file, result in results["files"].items():
        if result["left"]:
            text += f"\n## `sessions/{file}`\n\n"
        for each in result["left"]:
            what = "" if each["outcome"] == "survived" else f" ({each['outcome']})"
            reason = EQUIVALENT.get(f"{file}: {each['after']}")
            said = f": {reason}" if reason else ""
            change = (
                each["after"] if each["new"] == "pass" else f"{each['before']} → {each['after']}"
            )
            text += f"- {each['line']}{what}: ``{change}``{said}\n"
    return text


def _counts(result: dict[str, Any]) -> Counter[str]:
    left = Counter(each["outcome"] for each in result["left"])
    same = sum(
        each["outcome"] == "survived" and f"{each['file']}: {each['after']}" in EQUIVALENT
        for each in result["left"]
    )
    killed = result["tried"] - sum(left.values())
    return Counter(
        all=result["all"],
        tried=result["tried"],
        killed=killed,
        survived=left["survived"],
        equivalent=same,
        timeout=sum(left.values()) - left["survived"],
    )


def _row(counts: Counter[str]) -> str:
    names = ("all", "tried", "killed", "survived", "equivalent", "timeout")
    cells = " | ".join(str(counts[name]) for name in names)
    return f"| {cells} | {_score(counts)} |\n"


def _score(counts: Counter[str]) -> str:
    judged = counts["killed"] + counts["survived"] - counts["equivalent"]
    return f"{counts['killed'] / max(1, judged):.0%}"


def _files(words: list[str]) -> Iterator[str]:
    for word in words:
        if word not in FILES:
            raise SystemExit(f"{word}: choose among {', '.join(FILES)}, --survivors, --page.")
        yield word


def main(words: list[str]) -> None:
    """Try what is named, or all, and write the page; other files keep their results."""
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"files": {}}
    again = "--survivors" in words
    only_page = "--page" in words
    names = list(_files([word for word in words if not word.startswith("--")])) or list(FILES)
    if not only_page:
        with tempfile.TemporaryDirectory() as folder:
            project = Project(bake(Path(folder), backend="sqlite", scheme=SCHEME), "sqlite")
            project.make("setup")
            for cache in project.folder.rglob(f"{project.package}/**/__pycache__"):
                shutil.rmtree(cache)
            forked = Forked(project)
            try:
                for file in names:
                    before = results["files"].get(file) if again else None
                    results["files"][file] = measure(forked, file, before)
                    results["date"] = dt.datetime.now(dt.UTC).date().isoformat()
                    python = ".".join(map(str, sys.version_info[:3]))
                    results["versions"] = ", ".join([f"Python {python}", *_versions(project)])
                    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
            finally:
                forked.close()
    results["files"] = {file: results["files"][file] for file in FILES if file in results["files"]}
    PAGE.write_text(page(results), "utf-8")
    score = _score(sum((_counts(result) for result in results["files"].values()), Counter()))
    told = re.sub(r"They notice \*\*\d+%\*\*", f"They notice **{score}**", GUIDE.read_text("utf-8"))
    GUIDE.write_text(told, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
