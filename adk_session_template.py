"""The template's Jinja extension: answers are data, and bad ones are refused before anything is written.

Cookiecutter loads it from the checkout, because `_extensions` in `cookiecutter.json` names it. It
does four things that cookiecutter does not:

- It checks the answers while the questions are asked, with the checks of `hooks/pre_gen_project.py`. An error
  is one sentence, without a folder and without a traceback. At a prompt, the question is asked again.
- It keeps Jinja out of answers. Otherwise `--no-input` would evaluate `project_name="{{ 7*7 }}"`.
- Its `tojson` writes strings that are valid in JSON, TOML, YAML and Python.
- Its `left_out` lists the files that a project does not keep, for the hooks that remove them.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

import click
from cookiecutter.exceptions import FailedHookException
from cookiecutter.prompt import read_user_variable
from jinja2 import Environment
from jinja2.ext import Extension

ROOT = Path(__file__).resolve().parent
LINE_LENGTH = 100
OLDEST = (2, 2)
"""The oldest version of cookiecutter that works."""


def strings(value: Any) -> Iterator[str]:
    """Yield every string in a JSON document, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def one_line(text: str, otherwise: str = "") -> str:
    """Fold a text into one printable line, for headings and comments."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split()) or otherwise


def tojson(value: Any) -> str:
    r"""Write a value as JSON with only unprintable characters escaped.

    Jinja's own filter writes an emoji as two surrogates, which TOML refuses and YAML misreads, and `'` as
    `\u0027`.
    """
    return "".join(
        char if char.isprintable() or ord(char) > 0xFFFF else f"\\u{ord(char):04x}"
        for char in json.dumps(value, ensure_ascii=False)
    )


def width(text: str) -> int:
    """Return the width of a text in columns, as the formatter of Python files counts it."""
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def assigned_to(value: str, name: str) -> str:
    """Write `name = "value"` like the formatter."""
    literal = tojson(value)
    if value.count('"') > value.count("'"):
        literal = "'" + literal[1:-1].replace(r"\"", '"').replace("'", r"\'") + "'"
    line = f"{name} = {literal}"
    fits_only_alone = width(line) > LINE_LENGTH >= width(literal) + 4
    return f"{name} = (\n    {literal}\n)" if fits_only_alone else line


def left_out(paths: Sequence[str], answers: Mapping[str, Any]) -> list[str]:
    """Return those of the project's paths that are for another backend or for other answers.

    In `sessions/` and in the folders of tests, the folder `redis`, `redis.py`, `redis_….py`, `test_redis.py` and
    `test_redis_….py` belong to the module `redis`. `files` in the row of a backend lists its other files.
    """
    backends = answers["_backends"]
    chosen, package = backends[answers["backend"]], answers["__package"]
    kept = set(chosen["modules"])
    dropped = {module for row in backends.values() for module in row["modules"]} - kept
    of_others = re.compile(
        rf"({package}/sessions|tests/(sessions|servers|proof))/"
        rf"(test_)?({'|'.join(sorted(dropped))})(_.*|\..*|/.*)?"
    )
    # A module that is only a part of the chosen store has tests for which it must be the store.
    parts = "|".join(sorted(kept - {chosen["store"]["module"]})) or "-"
    of_parts = re.compile(rf"tests/(\w+/test_({parts}).*|proof/({parts})_.*)\.py")
    files = {file for row in backends.values() for file in row.get("files", [])}
    unlisted = {file.format(package=package) for file in files - set(chosen.get("files", []))}
    unlisted.add("INCOMPLETE.md")  # for projects that are baked without hooks
    if answers["license"] == "Proprietary":
        unlisted.add("LICENSE")
    proof = answers["__proof"] == "yes"
    return [
        path
        for path in paths
        if path in unlisted
        or of_others.fullmatch(path)
        or of_parts.fullmatch(path)
        or (not proof and path.startswith("tests/proof/"))
    ]


def folder_problems(answers: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[str]:
    """Yield why cookiecutter's options do not let it write the project's folder."""
    slug = answers["project_slug"]
    if (Path(options.get("output_dir", ".")) / slug).exists() and options.get(
        "overwrite_if_exists"
    ) is False:
        yield (
            f"project_slug {slug!r} is a folder that exists: take another name, or run `make update` there, "
            "or bake over it with --overwrite-if-exists."
        )


def commit(_: object) -> str:
    """Return the commit of this checkout, or nothing if it is not one, such as an archive."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return ""
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


class Answers(Extension):
    """Treats answers as data, and refuses bad ones."""

    def __init__(self, environment: Environment) -> None:
        """Read the checks and the template's own texts. An update renders two versions."""
        super().__init__(environment)
        installed = version("cookiecutter")  # 2.2.0 has another one in `__version__`
        if tuple(map(int, installed.split(".")[:2])) < OLDEST:
            # Cookiecutter shows the text of an ImportError.
            raise ImportError(f"cookiecutter {installed} is too old; 2.2.0 or newer is needed.")
        hooks = sorted((ROOT / "hooks").glob("*.py"))
        self.rules = runpy.run_path(str(ROOT / "hooks" / "pre_gen_project.py"))
        self.texts = {hook.read_text(encoding="utf-8") for hook in hooks}
        self.questions = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
        self.texts.update(strings(self.questions))
        folder = next(ROOT.glob("{{*"))
        self.files = [
            path.relative_to(folder).as_posix()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        ]
        inside = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        self.paths = (folder.name, *(path for path in inside if "{{" in path))
        environment.filters.update(
            assigned_to=assigned_to,
            checked=self.checked,
            commit=commit,
            left_out=self.left_out,
            one_line=one_line,
            safe_slug=self.rules["safe_slug"],
            tojson=tojson,
        )

    def checked(self, answers: MutableMapping[str, Any]) -> str:
        """Ask again for each bad answer among those given so far, or stop the bake if nobody can be asked."""
        context = click.get_current_context(silent=True)
        options = context.params if context else {}
        while problems := [*self.rules["problems"](answers)] or [
            *folder_problems(answers, options)
        ]:
            if options.get("no_input", True):
                raise FailedHookException("\n".join(problems))
            question = problems[0].split()[0]
            click.echo(problems[0])
            default = self.environment.from_string(self.questions[question])
            answers[question] = read_user_variable(
                question, default.render(cookiecutter=answers), self.questions["__prompts__"]
            )
        return "yes"

    def left_out(self, answers: Mapping[str, Any]) -> list[str]:
        """Return the paths of the files of the template that a project with these answers does not keep."""
        if answers["backend"] not in answers["_backends"]:
            return []  # the first check of the hook refuses it
        package = answers["__package"]
        paths = [path.replace("{{cookiecutter.__package}}", package) for path in self.files]
        return left_out(paths, answers)

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Quote a text that is not one of the template's own, so that Jinja does not evaluate it."""
        if name is not None or "{" not in source or self.is_ours(source):
            return source
        escaped = source.encode("unicode_escape").decode().replace('"', r"\"")
        return '{{ "' + escaped + '" }}'

    def is_ours(self, source: str) -> bool:
        """Return whether a text is from cookiecutter.json, a hook or a path, and not an answer."""
        return source in self.texts or source.replace(os.sep, "/").endswith(self.paths)
