"""The template's Jinja extension, which writes answers into files of every syntax."""

from __future__ import annotations

import ast
import json
import random
import tomllib
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from adk_session_template import assigned_to, one_line, tojson

from .baking import run

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS)
def test_tojson_is_valid_in_every_syntax(text: str) -> None:
    """The same string is valid in JSON, TOML, YAML and Python."""
    written = tojson(text)
    assert json.loads(written) == text
    assert tomllib.loads(f"x = {written}")["x"] == text
    assert yaml.safe_load(f"x: {written}")["x"] == text
    assert ast.literal_eval(written) == text


def test_tojson_keeps_letters() -> None:
    """Names look as they were written."""
    assert tojson("O'Brien & Søn <助手> 🤖") == '"O\'Brien & Søn <助手> 🤖"'
    assert tojson("\u202e\x7f\ufeff") == r'"\u202e\u007f\ufeff"'


@given(TEXTS)
def test_one_line_is_one_line(text: str) -> None:
    """A text cannot end a heading or a comment."""
    line = one_line(text, "nameless")
    assert line
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_assignments_match_the_formatter(tmp_path: Path) -> None:
    """Strings of any length and with any quotes keep their value and need no formatting."""
    chance = random.Random(1)
    texts = ["".join(chance.choices("ab c\"'\\é助{}%\a", k=k % 130)) for k in range(1000)]
    written = [assigned_to(text, "NAME") for text in texts]
    for text, line in zip(texts, written, strict=True):
        (statement,) = ast.parse(line).body
        assert isinstance(statement, ast.Assign)
        assert ast.literal_eval(statement.value) == text
    (tmp_path / "names.py").write_text("\n".join(written) + "\n", "utf-8")
    run("ruff", "format", "--no-cache", "--config=line-length=100", "--check", ".", cwd=tmp_path)
