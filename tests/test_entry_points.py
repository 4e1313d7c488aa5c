"""Every way to start the agent, started for real, killed, and started again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .installed import SCHEME, Project

pytestmark = pytest.mark.installed

SERVING = [
    "python -m {package} web",
    "python -m {package} serve",
    "adk web .",
    "adk web {package}",
    "adk api_server .",
]
TALKING = ["python -m {package} run", "adk run {package}"]


def command(project: Project, line: str, uri: str) -> list[str]:
    """Return a command; ADK's own is told the session URI, ours finds it in the environment."""
    words = line.format(package=project.package).split()
    return words if words[0] == "python" else [*words, f"--session_service_uri={uri}"]


@pytest.mark.two_backends(but=SERVING[0])
@pytest.mark.parametrize("line", SERVING)
def test_a_conversation_outlives_the_process(project: Project, line: str, tmp_path: Path) -> None:
    """A name told to a process that is then killed is known to the next one."""
    with project.server(tmp_path / "data") as uri:
        words = command(project, line, uri)
        with project.web(*words, uri=uri, log=tmp_path / "first.log") as web:
            web.create("one")
            web.say("one", "My name is Ada.")
            before = web.session("one")
        with project.web(*words, uri=uri, log=tmp_path / "second.log") as web:
            assert web.session("one") == before
            assert "Ada" in web.say("one", "What is my name?")
            web.create("two")
            assert "Ada" in web.say("two", "What is my name?")
    said = (tmp_path / "first.log").read_text("utf-8")
    assert len(re.findall(rf"{SCHEME}\S* → {project.row['title']} at .+ 1h\b", said)) == 1


@pytest.mark.two_backends
@pytest.mark.parametrize("line", TALKING)
def test_a_talk_in_the_terminal_is_remembered(project: Project, line: str, tmp_path: Path) -> None:
    """`run` keeps what it is told, too."""
    with project.server(tmp_path / "data") as uri:
        words = command(project, line, uri)
        words[0] = project.tool(words[0])
        status, said = project.run(*words, uri=uri, typed="My name is Ada.\nexit\n")
        assert status == 0, said
        status, said = project.run(*words, uri=uri, typed="What is my name?\nexit\n")
        assert status == 0, said
        assert "Your name is Ada" in said


def error(project: Project, line: str, uri: str) -> str:
    """Run a command that must fail, and return the one sentence that says why."""
    words = command(project, line, uri)
    status, said = project.run(project.tool(words[0]), *words[1:], uri=uri)
    assert status != 0, said
    assert "Traceback" not in said
    sentences = [row for row in said.splitlines() if row.startswith("Error: ")]
    assert len(sentences) == 1, said
    return sentences[0]


@pytest.mark.two_backends
@pytest.mark.parametrize("line", [*SERVING, *TALKING])
def test_a_scheme_that_nobody_knows_is_named(project: Project, line: str) -> None:
    """Never a quiet fall through to SQLAlchemy or to memory."""
    assert "'acne'" in error(project, line, "acne://somewhere:1/0")


@pytest.mark.two_backends(but=SERVING[0])
@pytest.mark.parametrize("line", [*SERVING, *TALKING])
def test_a_store_that_is_not_there_is_named(project: Project, line: str) -> None:
    """The sentence says which backend and where, and not with what credentials."""
    uri = project.row["unreachable_uri"].replace("{scheme}", SCHEME)
    sentence = error(project, line, uri)
    assert project.row["title"].split(" and ")[0] in sentence
    credentials, _, place = uri.partition("://")[2].strip("/").split("/")[0].rpartition("@")
    assert place in sentence
    assert not credentials or credentials not in sentence


def test_a_driver_that_is_not_installed_is_named(project: Project) -> None:
    """The sentence says what is missing; what Python itself brings cannot be."""
    uri = project.row["default_uri"].replace("{scheme}", SCHEME)
    for requirement in project.row["dependencies"]:
        driver = re.split(r"[^A-Za-z0-9_-]", requirement)[0]
        module = driver.replace("-", ".")
        if driver == "requests":  # without it, ADK itself does not start
            continue
        uninstall = ("uv", "pip", "uninstall", "--python", project.tool("python"), driver)
        status, said = project.run(*uninstall)
        assert status == 0, said
        try:
            for line in ("python -m {package} web", "adk web .", "adk run {package}"):
                assert repr(module) in error(project, line, uri)
        finally:
            project.make("setup")
