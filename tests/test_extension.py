"""The template's Jinja extension: how answers get into files of every syntax."""

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
def test_tojson_says_the_same_in_every_syntax(text: str) -> None:
    """One way to write a string serves JSON, TOML, YAML and Python."""
    written = tojson(text)
    assert json.loads(written) == text
    assert tomllib.loads(f"x = {written}")["x"] == text
    assert yaml.safe_load(f"x: {written}")["x"] == text
    assert ast.literal_eval(written) == text


def test_tojson_leaves_letters_alone() -> None:
    """People find their names as they wrote them."""
    assert tojson("O'Brien & Søn <助手> 🤖") == '"O\'Brien & Søn <助手> 🤖"'
    assert tojson("\u202e\x7f\ufeff") == r'"\u202e\u007f\ufeff"'


@given(TEXTS)
def test_one_line_is_one_line(text: str) -> None:
    """Headings and comments cannot be broken out of."""
    line = one_line(text, "nameless")
    assert line
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_assignments_are_written_as_the_formatter_would(tmp_path: Path) -> None:
    """Whatever the length and the quotes: nothing is left to reformat, and the value is the same."""
    chance = random.Random(1)
    texts = ["".join(chance.choices("ab c\"'\\é助{}%\a", k=k % 130)) for k in range(1000)]
    written = [assigned_to(text, "NAME") for text in texts]
    for text, line in zip(texts, written, strict=True):
        (statement,) = ast.parse(line).body
        assert isinstance(statement, ast.Assign)
        assert ast.literal_eval(statement.value) == text
    (tmp_path / "names.py").write_text("\n".join(written) + "\n", "utf-8")
    run("ruff", "format", "--no-cache", "--config=line-length=100", "--check", ".", cwd=tmp_path)
