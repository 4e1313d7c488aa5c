"""Sessions move in from ADK's own services, and from one backend to another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .baking import bake
from .installed import SCHEME, Project
from .moves import DRIVERS, SOURCES, copied, kill, mover

pytestmark = pytest.mark.installed


@pytest.mark.two_backends
def test_sessions_of_adks_services_arrive_unchanged(project: Project, tmp_path: Path) -> None:
    """Every event is compared through both services. `moves.py` does this at scale, with kills."""
    command = ("uv", "run", "--quiet", "--with", DRIVERS[0], "python")
    with mover(project, *(command if project.backend == "sqlite" else ())) as call:
        uri = call("start", str(tmp_path))
        for _, backend, source in SOURCES.values():
            if backend == project.backend:
                adk = source.format(data=tmp_path, uri=uri.replace(SCHEME, backend, 1))
                before = call("fill_adk", adk, 50)
                adk, target = adk.removeprefix("v0+"), call("namespace", uri)
                if killed := project.backend != "sqlite":  # where the driver is in the project
                    kill(project, ("copy", "--from", adk, "--to", target, "--ttl", "0"), 20)
                copied(call, adk, target, before, partly=killed)


@pytest.mark.two_backends(backends=["redis"])
def test_project_changes_its_database_as_the_readme_says(project: Project, tmp_path: Path) -> None:
    """A project with SQLite and its twin: the twin knows what was said, and nothing is copied twice."""
    answers = {"project_slug": project.folder.name, "scheme": SCHEME}
    old = Project(bake(tmp_path / "old", backend="sqlite", **answers), "sqlite")
    module = (project.tool("python"), "-m", project.package)

    def sessions(where: Project, *words: str, uri: str, typed: str = "") -> str:
        status, said = where.run(*module, "sessions", *words, uri=uri, typed=typed)
        assert status == 0, said
        return said

    before = f"{SCHEME}:///{tmp_path}/sessions.db"
    with project.server(tmp_path / "data") as after:
        with old.web(*module, "serve", uri=before, log=tmp_path / "old.log") as web:
            web.create("one")
            web.say("one", "My name is Ada.")
            session = web.session("one")
        for copied in (1, 0):
            lines = sessions(old, "export", "--all", uri=before)
            said = sessions(project, "import", "--verify", "-", uri=after, typed=lines)
            assert f"Copied {copied} session" in said
        with project.web(*module, "serve", uri=after, log=tmp_path / "new.log") as web:
            assert web.session("one") == session
            assert "Ada" in web.say("one", "What is my name?")
        listed = json.loads(sessions(project, "list", "--json", uri=after))
        assert [each["id"] for each in listed] == ["one"]
