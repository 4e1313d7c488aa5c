"""The template's Jinja extension: answers are data, and bad ones are refused before anything is written.

Cookiecutter loads it from the checkout because `cookiecutter.json` names it under `_extensions`;
`cruft` does the same. It does three things that plain cookiecutter does not:

- it checks the answers while they are being given, with the checks of `hooks/pre_gen_project.py`,
  so that a wrong one ends with its sentence, without a folder and without a traceback;
- it keeps Jinja out of answers: `--no-input` would otherwise run `project_name="{{ 7*7 }}"`;
- its `tojson` writes strings that are right, and look the same, in JSON, TOML, YAML and Python.
"""

from __future__ import annotations

import json
import os
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment
from jinja2.ext import Extension

ROOT = Path(__file__).resolve().parent
LINE_LENGTH = 100


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
    r"""Write a value as JSON in which letters stay letters and only the unprintable is escaped.

    Jinja's own filter writes an emoji as two surrogates, which TOML refuses and YAML misreads, and
    `'` as `\u0027`, which is right but nobody would write it.
    """
    return "".join(
        char if char.isprintable() or ord(char) > 0xFFFF else f"\\u{ord(char):04x}"
        for char in json.dumps(value, ensure_ascii=False)
    )


def width(text: str) -> int:
    """Return how many columns a text fills, as the formatter of Python files counts them."""
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def assigned_to(value: str, name: str) -> str:
    """Write `name = "value"` the way the formatter would, so that nothing needs to be exempted."""
    literal = tojson(value)
    if value.count('"') > value.count("'"):
        literal = "'" + literal[1:-1].replace(r"\"", '"').replace("'", r"\'") + "'"
    line = f"{name} = {literal}"
    fits_only_alone = width(line) > LINE_LENGTH >= width(literal) + 4
    return f"{name} = (\n    {literal}\n)" if fits_only_alone else line


class Answers(Extension):
    """Treats what people answer as data, and refuses what cannot work."""

    def __init__(self, environment: Environment) -> None:
        """Read the checks and the template's own texts afresh: an update renders two versions."""
        super().__init__(environment)
        hooks = sorted((ROOT / "hooks").glob("*.py"))
        self.rules = runpy.run_path(str(ROOT / "hooks" / "pre_gen_project.py"))
        self.texts = {hook.read_text(encoding="utf-8") for hook in hooks}
        self.texts.update(strings(json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))))
        folder = next(ROOT.glob("{{*"))
        inside = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        self.paths = (folder.name, *(path for path in inside if "{{" in path))
        environment.filters.update(
            assigned_to=assigned_to,
            checked=self.checked,
            one_line=one_line,
            safe_slug=self.rules["safe_slug"],
            tojson=tojson,
        )

    def checked(self, answers: Mapping[str, Any]) -> str:
        """Stop the bake with one sentence for each wrong answer among those given so far."""
        if problems := list(self.rules["problems"](answers)):
            raise FailedHookException("\n".join(problems))
        return "yes"

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Quote what is not one of the template's own texts, so that Jinja leaves it alone."""
        if name is not None or "{" not in source or self.is_ours(source):
            return source
        escaped = source.encode("unicode_escape").decode().replace('"', r"\"")
        return '{{ "' + escaped + '" }}'

    def is_ours(self, source: str) -> bool:
        """Tell a text of cookiecutter.json, a hook or a path in the template from an answer."""
        return source in self.texts or source.replace(os.sep, "/").endswith(self.paths)
