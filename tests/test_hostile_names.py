"""Names, descriptions and authors are data: any text gives a working project."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
import yaml

from .baking import ROOT, bake, run, texts

HOSTILE = {
    "double quote": 'The "Agent"',
    "single quote": "O'Brien's",
    "three quotes": "'''\"\"\"'''",
    "backslash": "C:\\new\\table \\",
    "newline": "one\ntwo\r\nthree\n",
    "heading": "a\n# b\n---\n",
    "control characters": "bell \x07 escape \x1b[31m del \x7f tab \t nel \x85 line \u2028 bom \ufeff",
    "expression": "{{ 7 * 7 }}",
    "half an expression": "a {{ b",
    "empty expression": "{{ }}",
    "statement": "{% for x in y %}",
    "raw": "{% endraw %}{% raw %}",
    "comment": "{# {{ #}",
    "undefined": "{{ cookiecutter.nothing.at.all }}",
    "secret": "${{ secrets.GITHUB_TOKEN }} ${HOME} $HOME $(id) `id`",
    "percent": "100 %s %d %(x)s %",
    "python": '"); open("pwned", "w").close(); ("',
    "python, single": "'); open('pwned', 'w').close(); ('",
    "docstring": '"""\nopen("pwned", "w").close()\n"""',
    "toml": '"\n[tool.evil]\nx = "1',
    "yaml": "a: b\n- c: &d *e !!f # g",
    "shell": "; touch pwned; && | > < $(touch pwned)",
    "markdown": "[a](b) **c** <script>alert(1)</script> | d | ```",
    "makefile": "$(shell touch pwned) := # %",
    "non-Latin": "Помощник 助手 مساعد עוזר ผู้ช่วย",
    "accents and signs": "Ünï çødé — “quotes” … ½",
    "emoji": "🤖 👩‍💻 🏳️‍🌈",
    "right to left": "\u202egpj.exe\u202c",
    "spaces": "   padded   ",
    "commas": "Lovelace, Ada; Hopper, Grace <grace@example.com>",
    "only signs": "!!! ??? ---",
    "long": "very " * 400 + "long",
    "json": '{"a": [1, null]}',
    "slashes": "../../etc/passwd",
    "dashes": "--no-input",
    "empty": "",
}


@pytest.fixture(params=list(HOSTILE.values()), ids=list(HOSTILE))
def text(request: pytest.FixtureRequest) -> str:
    """Return a text that breaks careless templates."""
    hostile: str = request.param
    return hostile


@pytest.fixture
def project(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bake with the text as name, description and author, in a folder where it can do no harm."""
    monkeypatch.chdir(tmp_path)
    project = bake(tmp_path / "out", project_name=text, description=text, author=text)
    assert list(tmp_path.rglob("pwned")) == []
    assert not (ROOT / "pwned").exists()
    return project


def test_hostile_text_bakes_to_a_clean_project(project: Path, text: str) -> None:
    """All files are valid and contain the answers. Nothing was executed or looked up."""
    for path, content in texts(project):
        if path.endswith(".py"):
            ast.parse(content, path)
        elif path.endswith(".toml"):
            tomllib.loads(content)
        elif path.endswith((".yml", ".yaml")):
            yaml.safe_load(content)
    run("ruff", "format", "--check", "--no-cache", ".", cwd=project)
    run("ruff", "check", "--no-cache", ".", cwd=project)
    said = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    assert "evil" not in said["tool"]
    assert words(said["project"]["description"]) == words(text)
    for author in said["project"].get("authors", []):
        assert words(author["name"]) == words(text)


def test_hostile_text_becomes_one_heading(project: Path) -> None:
    """The README begins with one line of title."""
    title, blank = (project / "README.md").read_text("utf-8").splitlines()[:2]
    assert title.startswith("# ")
    assert len(title) > 2
    assert blank == ""


def test_hostile_text_does_not_reach_code(text: str, project: Path, tmp_path: Path) -> None:
    """Python, commands, containers and CI do not depend on it."""
    slug = project.name
    plain = bake(tmp_path / "plain", project_slug=slug)
    ours, theirs = dict(texts(project)), dict(texts(plain))
    different = {path for path in ours if ours[path] != theirs[path]}
    settings = f"{slug.replace('-', '_')}/settings.py"
    assert different <= {"README.md", "LICENSE", "pyproject.toml", ".template.json", settings}
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(ours[settings]).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    assert words(constants["DESCRIPTION"]) == words(text)


def words(text: str) -> list[str]:
    """Return the words of a text without unprintable characters."""
    return "".join(char if char.isprintable() else " " for char in text).split()
