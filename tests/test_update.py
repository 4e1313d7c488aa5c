"""Updates: projects of every version, edited as their owners do, get the next version."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .baking import ROOT
from .installed import Project

GIT = ["git", "-c", "user.name=Tests", "-c", "user.email=tests@example.com"]
NOT_OURS = shutil.ignore_patterns(
    ".git", ".venv", ".uv", ".*_cache", "__pycache__", "baked", ".bench"
)


def has_history() -> bool:
    """Return whether this is a whole clone. An archive or a shallow clone has only the newest version."""
    command = ["git", "rev-parse", "--is-shallow-repository"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() == "false" and (ROOT / ".git").exists()


RELEASED: dict[str, str] = json.loads((ROOT / "versions.json").read_text("utf-8"))
VERSIONS = RELEASED if has_history() else {}
VERSION: str = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))["_version"]
NEXT = "99.0.0"
CONFIG = Path("my_agent", "sessions", "config.py")


def git(folder: Path, *words: str) -> str:
    """Run git in a folder and return its output."""
    command = [*GIT, *words]
    result = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return result.stdout.strip()


def commit(folder: Path) -> str:
    """Commit all files of a folder, and return the commit."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message=x")
    return git(folder, "rev-parse", "HEAD")


def change(file: Path, old: str, new: str) -> None:
    """Replace a text in a file, which must have it."""
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """Return a repository with the template's history and a next version.

    It changes files that owners change, too: the end of `.gitignore`, a file of the demo, and the TTL.
    """
    folder = tmp_path / "template"
    if VERSIONS:
        git(tmp_path, "clone", "--quiet", str(ROOT), "template")
        git(folder, "checkout", "--quiet", "-B", "next")
    shutil.copytree(ROOT, folder, ignore=NOT_OURS, dirs_exist_ok=True)
    versions = {VERSION: commit(folder)} | VERSIONS
    (folder / "versions.json").write_text(json.dumps(versions), "utf-8")
    inside = folder / "{{cookiecutter.project_slug}}"
    change(folder / "cookiecutter.json", f'"_version": "{VERSION}"', f'"_version": "{NEXT}"')
    change(folder / "CHANGELOG.md", f"## {VERSION}", f"## {NEXT}\n\n- It shines.\n\n## {VERSION}")
    change(inside / ".gitignore", "\n.venv", "\nnew-in-the-template/\n.venv")
    model = inside / "{{cookiecutter.__package}}" / "demo" / "offline_model.py"
    (inside / "docs" / "new.md").write_text("# New\n")
    model.write_text(model.read_text("utf-8") + "\n# changed\n", "utf-8")
    commit(folder)
    return folder


def bake_earlier(template: Path, folder: Path, version: str = VERSION, **answers: str) -> Path:
    """Bake a project with a version of the template and return its folder."""
    earlier = folder / "earlier"
    git(template.parent, "clone", "--quiet", str(template), str(earlier))
    known = json.loads((template / "versions.json").read_text("utf-8"))
    git(earlier, "checkout", "--quiet", known[version])
    command = [sys.executable, "-m", "cookiecutter", str(earlier), "--no-input", "--default-config"]
    given = [f"{name}={answer}" for name, answer in answers.items()]
    # Python would take the extension of the newest version from this repository.
    command += [f"--output-dir={folder}", *given]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    shutil.rmtree(earlier)
    (project,) = folder.glob("*/.template.json")
    return project.parent


def update(project: Path, template: Path) -> tuple[int, str]:
    """Update a project, and return the exit status and the output."""
    command = [sys.executable, str(template / "update.py")]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


def edit(project: Path) -> None:
    """Edit a project like an owner: own agent, tool, TTL and test, and no demo."""
    (project / "my_agent" / "tools.py").write_text(
        'def shout(text: str) -> str:\n    """Return the text in capitals."""\n    return text.upper()\n'
    )
    (project / "my_agent" / "agent.py").write_text(
        '"""The agent."""\n\n'
        "from google.adk.agents import LlmAgent\n"
        "from google.adk.apps import App\n\n"
        "from .sessions.config import APP_NAME\n"
        "from .sessions.plugin import OneTurnAtATime\n"
        "from .tools import shout\n\n"
        'root_agent = LlmAgent(name="shouter", model="gemini-3.5-flash", tools=[shout])\n'
        "app = App(name=APP_NAME, root_agent=root_agent, plugins=[OneTurnAtATime()])\n"
    )
    (project / "tests" / "test_agent.py").write_text(
        "from my_agent.tools import shout\n\n\ndef test_shout() -> None:\n"
        '    assert shout("a") == "A"\n'
    )
    shutil.rmtree(project / "my_agent" / "demo")
    (project / "tests" / "test_demo.py").unlink()
    change(project / CONFIG, 'DEFAULT_TTL = "24h"', 'DEFAULT_TTL = "7d"')


@pytest.mark.installed
@pytest.mark.parametrize("version", sorted({VERSION, *VERSIONS}))
def test_edited_project_of_a_version_gets_the_next_one(
    version: str, template: Path, tmp_path: Path
) -> None:
    """Edits stay, what is deleted stays deleted, what is new arrives, and tests pass."""
    project = bake_earlier(template, tmp_path / "out", version)
    edit(project)
    commit(project)
    status, said = update(project, template)
    assert status == 0, said
    assert "- It shines." in said
    assert f"## {version}" not in said
    assert "new-in-the-template/" in (project / ".gitignore").read_text("utf-8")
    assert f'"version": "{NEXT}"' in (project / ".template.json").read_text("utf-8")
    assert 'DEFAULT_TTL = "7d"' in (project / CONFIG).read_text("utf-8")
    assert "shout" in (project / "my_agent" / "agent.py").read_text("utf-8")
    assert not (project / "my_agent" / "demo").exists()
    assert not list(project.rglob("*.rej"))
    assert "already" in update(project, template)[1]
    installed = Project(project, "sqlite")
    installed.make("setup")
    installed.make("lint")
    installed.make("test", "ARGS=tests/test_agent.py tests/sessions/test_persistence.py")


def test_conflict_is_a_merge_marker(template: Path, tmp_path: Path) -> None:
    """Where the owner and the template changed the same line, git's markers show both."""
    project = bake_earlier(template, tmp_path / "out")
    change(project / ".gitignore", "\n.venv", "\nmine/\n.venv")
    commit(project)
    status, said = update(project, template)
    assert status == 1
    assert said.endswith("Conflicts to resolve first:\n  .gitignore\n")
    text = (project / ".gitignore").read_text("utf-8")
    assert "<<<<<<< " in text
    assert "mine/" in text
    assert "new-in-the-template/" in text


def test_project_in_a_folder_of_a_repository_is_updated(template: Path, tmp_path: Path) -> None:
    """The answers may look like Jinja, too. The commit that it names may be lost: the version counts."""
    answers = {"project_name": "{{ 7*7 }}", "backend": "redis"}
    project = bake_earlier(template, tmp_path / "all" / "agents", **answers)
    record = json.loads((project / ".template.json").read_text("utf-8"))
    (project / ".template.json").write_text(json.dumps(record | {"commit": "0" * 40}), "utf-8")
    commit(tmp_path / "all")
    status, said = update(project, template)
    assert status == 0, said
    assert "new-in-the-template/" in (project / ".gitignore").read_text("utf-8")


def test_update_refuses_uncommitted_changes_and_other_folders(
    template: Path, tmp_path: Path
) -> None:
    """In one sentence, and without a change."""
    project = bake_earlier(template, tmp_path / "out")
    commit(project)
    change(project / ".gitignore", "\n.venv", "\nmine/\n.venv")
    before = (project / ".gitignore").read_text("utf-8")
    status, said = update(project, template)
    assert (status, said.count("\n")) == (1, 1)
    assert "commit them first" in said
    assert (project / ".gitignore").read_text("utf-8") == before
    status, said = update(tmp_path, template)
    assert (status, said.count("\n")) == (1, 1)
    assert "run `make update` in a baked project" in said


def test_untracked_file_in_the_way_is_kept(template: Path, tmp_path: Path) -> None:
    """Git refuses to overwrite it, and nothing is changed."""
    project = bake_earlier(template, tmp_path / "out")
    commit(project)
    (project / "docs").mkdir()
    (project / "docs" / "new.md").write_text("mine\n")
    status, said = update(project, template)
    assert status == 1
    assert "commit them first" in said
    assert git(project, "status", "--porcelain") == "?? docs/"
    assert (project / "docs" / "new.md").read_text() == "mine\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_commit_of_a_version_has_that_version(version: str) -> None:
    """versions.json is written by hand, after the commit."""
    then = json.loads(git(ROOT, "show", f"{VERSIONS[version]}:cookiecutter.json"))
    assert then["_version"] == version


def test_version_is_the_same_everywhere() -> None:
    """In cookiecutter.json, in pyproject.toml, and on top of the changelog."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert settings["project"]["version"] == VERSION
    newest, *earlier = re.findall(r"(?m)^## (\S+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"))
    assert newest == VERSION
    assert set(earlier) <= set(VERSIONS), "add the commit of each earlier version to versions.json"
