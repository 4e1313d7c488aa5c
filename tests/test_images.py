"""Commands of the Dockerfile, run without an engine for containers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .baking import bake
from .installed import Project
from .test_variants import LEFT_BEHIND

pytestmark = pytest.mark.installed

NOWHERE = "http://127.0.0.1:9"
"""A proxy that is not there."""


@pytest.mark.two_backends(backends=["sqlite"])
def test_health_check_does_not_go_through_a_proxy(project: Project, tmp_path: Path) -> None:
    """A container inherits `http_proxy` from its engine."""
    [words] = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", dockerfile(project.folder), re.M)
    check = json.loads(words)
    proxies = ("env", f"http_proxy={NOWHERE}", f"PATH={project.folder}/.venv/bin:/usr/bin:/bin")
    with (
        project.server(tmp_path / "data") as uri,
        project.web("python", "-m", project.package, "serve", uri=uri, log=tmp_path / "log") as web,
    ):
        port = urlsplit(web.address).port
        status, said = project.run(*proxies, f"PORT={port}", *check)
        assert status == 0, said
    status, said = project.run(*proxies, f"PORT={port}", *check)
    assert status != 0, "the server has ended"


def test_image_can_read_files_that_were_made_under_any_umask(tmp_path: Path) -> None:
    """The image runs another user than the one that built it."""
    folder = bake(tmp_path, backend="sqlite")
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode & ~0o027)
    assert unreadable(folder)
    [command] = re.findall(r"^RUN uv sync .* && (chmod .*) /app$", dockerfile(folder), re.M)
    subprocess.run([*command.split(), str(folder)], check=True)
    assert not unreadable(folder)


@pytest.mark.two_backends(backends=["sqlite"])
def test_member_of_a_workspace_says_where_its_image_is_built(
    project: Project, tmp_path: Path
) -> None:
    """Such a project has no `uv.lock` of its own, which its Dockerfile copies."""
    member = Project(tmp_path / "members" / project.folder.name, project.backend)
    shutil.copytree(project.folder, member.folder, ignore=LEFT_BEHIND)
    (member.folder / "uv.lock").unlink(missing_ok=True)
    workspace = '[project]\nname = "root"\nversion = "1"\nrequires-python = ">=3.11"\n'
    workspace += '[tool.uv.workspace]\nmembers = ["members/*"]\n'
    (tmp_path / "pyproject.toml").write_text(workspace, "utf-8")
    status, said = member.run("make", "uv.lock")
    assert status != 0
    assert "member of a uv workspace" in said
    assert (tmp_path / "uv.lock").exists()


def dockerfile(folder: Path) -> str:
    """Return the Dockerfile of a project."""
    return (folder / "Dockerfile").read_text("utf-8")


def unreadable(folder: Path) -> list[Path]:
    """Return what other users cannot read, or enter."""
    return [
        path
        for path in folder.rglob("*")
        if ~path.stat().st_mode & (0o005 if path.is_dir() else 0o004)
    ]
