"""Bakes with cookiecutter's command line, but without a process for each bake."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from cookiecutter.cli import main

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS: dict[str, Any] = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
RULES = runpy.run_path(str(ROOT / "hooks" / "pre_gen_project.py"))
BACKENDS: dict[str, dict[str, Any]] = QUESTIONS["_backends"]
ANSWERABLE = [question for question in QUESTIONS if not question.startswith("_")]


def cookiecutter(
    folder: Path, *options: str, typed: str = "", template: str = str(ROOT), **answers: str
) -> Result:
    """Run cookiecutter on this template, without touching the home directory."""
    with tempfile.TemporaryDirectory() as own:
        config = Path(own) / "config.yaml"
        config.write_text(json.dumps({"replay_dir": own, "cookiecutters_dir": own}), "utf-8")
        arguments = [template, "--output-dir", str(folder), "--config-file", str(config)]
        given = [f"{question}={answer}" for question, answer in answers.items()]
        return CliRunner().invoke(main, [*arguments, *options, *given], input=typed)


def bake(folder: Path, **answers: str) -> Path:
    """Bake a project into an empty folder and return its path."""
    result = cookiecutter(folder, "--no-input", **answers)
    assert result.exit_code == 0, f"{result.output}{result.exception!r}"
    (project,) = folder.iterdir()
    return project


def refusal(folder: Path, **answers: str) -> str:
    """Bake with a bad answer, check that nothing was written, and return the output."""
    result = cookiecutter(folder, "--no-input", **answers)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), "it ended with a traceback"
    assert list(folder.iterdir()) == []
    return result.output.strip()


def texts(project: Path) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of every file of a project."""
    for path in sorted(project.rglob("*")):
        if path.is_file():
            yield path.relative_to(project).as_posix(), path.read_text("utf-8")


def run(*command: str | Path, cwd: Path) -> None:
    """Run a tool of the tests' environment. Its output is shown if it fails."""
    name, *arguments = map(str, command)
    tool = shutil.which(name, path=Path(sys.executable).parent)
    assert tool, f"{name} is not installed beside Python"
    ran = subprocess.run(
        [tool, *arguments], cwd=cwd, capture_output=True, text=True, encoding="utf-8"
    )
    assert ran.returncode == 0, f"{name} {' '.join(arguments)}\n{ran.stdout}{ran.stderr}"
