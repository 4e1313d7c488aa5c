"""Updates of baked projects with cruft."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .baking import ROOT, run

GIT = ["git", "-c", "user.name=Tests", "-c", "user.email=tests@example.com"]
NOT_OURS = shutil.ignore_patterns(".git", ".venv", ".uv", ".*_cache", "__pycache__", "baked")


def commit(folder: Path) -> None:
    """Make a folder a git repository and commit all its files."""
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=x"]):
        subprocess.run([*GIT, *words], cwd=folder, check=True)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """Return a copy of the template in its own repository."""
    folder = tmp_path / "template"
    shutil.copytree(ROOT, folder, ignore=NOT_OURS)
    commit(folder)
    return folder


def test_cruft_update_brings_changes(template: Path, tmp_path: Path) -> None:
    """An update keeps answers that look like Jinja and the owner's changes."""
    answers = '{"project_name": "{{ 7*7 }}", "backend": "redis", "scheme": "acme"}'
    run("cruft", "create", template, "--extra-context", answers, "--no-input", cwd=tmp_path)
    project = tmp_path / "agent-7-7"
    (project / "NOTES.md").write_text("mine\n", "utf-8")
    commit(project)

    ignored = template / "{{cookiecutter.project_slug}}" / ".gitignore"
    ignored.write_text(ignored.read_text("utf-8") + "new-in-the-template/\n", "utf-8")
    commit(template)
    run("cruft", "update", "--skip-apply-ask", cwd=project)

    assert "new-in-the-template/" in (project / ".gitignore").read_text("utf-8")
    assert (project / "NOTES.md").read_text("utf-8") == "mine\n"
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True, check=True
    )
    assert {line[3:] for line in changed.stdout.splitlines()} == {".cruft.json", ".gitignore"}
    run("cruft", "check", cwd=project)
