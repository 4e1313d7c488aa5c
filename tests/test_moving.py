"""Sessions move in from ADK's own services, and from one backend to another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .baking import bake
from .installed import SCHEME, Project

pytestmark = pytest.mark.installed

SCRIPT = Path(__file__).with_name("moving.py")

SOURCES = {
    "sqlite": ("sqlite:///{data}/adk.db", "{schema}sqlite+aiosqlite:///{data}/{schema}tables.db"),
    "redis": ("adk+{uri}",),
    "mongodb": ("adk+{uri}",),
}
"""ADK's services by the backend whose project has their driver."""


@pytest.mark.two_backends
def test_sessions_of_adks_services_arrive_unchanged(project: Project, tmp_path: Path) -> None:
    """`moving.py` compares every event through both services."""
    extra = ("--with", "sqlalchemy[asyncio]>=2,<3") if project.backend == "sqlite" else ()
    for number, source in enumerate(SOURCES.get(project.backend, ())):
        for schema in ("", "v0+") if "{schema}" in source else ("",):
            data = tmp_path / f"{number}{schema}"
            with project.server(data) as uri:
                adk = source.format(
                    data=data, schema=schema, uri=uri.replace(SCHEME, project.backend, 1)
                )
                command = ("python", str(SCRIPT), adk, uri, "50")
                status, said = project.run(
                    "env", "PYTHONPATH=.", "uv", "run", "--quiet", *extra, *command
                )
            assert status == 0, said
            assert said.splitlines()[-1] == "equal"


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
