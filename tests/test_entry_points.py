"""Every way to start the agent is started, killed and started again."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .installed import SCHEME, Project, Web

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
    """Return a command. ADK's own take the session URI as an option, ours from the environment."""
    words = line.format(package=project.package).split()
    return words if words[0] == "python" else [*words, f"--session_service_uri={uri}"]


@pytest.mark.two_backends(but=SERVING[0])
@pytest.mark.parametrize("line", SERVING)
def test_conversation_survives_a_kill(project: Project, line: str, tmp_path: Path) -> None:
    """A name that was told to a killed process is known to the next one."""
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
def test_terminal_conversation_is_stored(project: Project, line: str, tmp_path: Path) -> None:
    """The next `run` knows the name."""
    with project.server(tmp_path / "data") as uri:
        words = command(project, line, uri)
        words[0] = project.tool(words[0])
        status, said = project.run(*words, uri=uri, typed="My name is Ada.\nexit\n")
        assert status == 0, said
        status, said = project.run(*words, uri=uri, typed="What is my name?\nexit\n")
        assert status == 0, said
        assert "Your name is Ada" in said


def error(project: Project, line: str, uri: str) -> str:
    """Run a command that must fail, and return its error, which is one sentence."""
    words = command(project, line, uri)
    status, said = project.run(project.tool(words[0]), *words[1:], uri=uri)
    assert status != 0, said
    assert "Traceback" not in said
    sentences = [row for row in said.splitlines() if row.startswith("Error: ")]
    assert len(sentences) == 1, said
    return sentences[0]


@pytest.mark.two_backends(backends=["sqlite"])
@pytest.mark.parametrize("line", [*SERVING, *TALKING])
def test_unknown_scheme_is_reported(project: Project, line: str) -> None:
    """It must not silently fall through to SQLAlchemy or to memory."""
    assert "'acne'" in error(project, line, "acne://somewhere:1/0")


@pytest.mark.two_backends(but=SERVING[0])
@pytest.mark.parametrize("line", [*SERVING, *TALKING])
def test_unreachable_store_is_reported(project: Project, line: str) -> None:
    """The error names the backend and its address, but no credentials."""
    uri = project.row["unreachable_uri"].replace("{scheme}", SCHEME)
    sentence = error(project, line, uri)
    assert project.row["title"].split(" and ")[0] in sentence
    credentials, _, place = uri.partition("://")[2].strip("/").split("/")[0].rpartition("@")
    assert place in sentence
    assert not credentials or credentials not in sentence


def test_missing_driver_is_reported(project: Project) -> None:
    """The error names the missing module."""
    uri = project.row["default_uri"].replace("{scheme}", SCHEME)
    for requirement in project.row["dependencies"]:
        driver = re.split(r"[^A-Za-z0-9_-]", requirement)[0]
        module = driver.replace("-", ".")
        if driver == "requests":  # ADK itself needs it
            continue
        uninstall = ("uv", "pip", "uninstall", "--python", project.tool("python"), driver)
        status, said = project.run(*uninstall)
        assert status == 0, said
        try:
            for line in ("python -m {package} web", "adk web .", "adk run {package}"):
                assert repr(module) in error(project, line, uri)
        finally:
            project.make("setup")


@pytest.mark.two_backends(backends=["redis"])
def test_other_terminals_find_the_server_of_make_dev(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first start of a user in a terminal: ADK asks nothing there before it serves."""
    monkeypatch.setenv("HOME", str(tmp_path))
    _, terminal = os.openpty()
    module = (project.tool("python"), "-m", project.package)
    address = project.folder / ".data" / "server.uri"
    with project.web("make", "dev", log=tmp_path / "log", stdin=terminal, end=signal.SIGINT) as web:
        web.create("of-make-dev")
        web.say("of-make-dev", "My name is Ada.")
        status, listed = project.run(*module, "sessions", "list")
        assert status == 0, listed
        assert "of-make-dev" in listed
        status, said = project.run(*module, "doctor")
        assert status == 0, said
        assert urlsplit(address.read_text("utf-8")).netloc in said
    assert not address.exists()


SECOND_AGENT = """
from google.adk.agents import LlmAgent
from google.adk.apps import App

from my_agent.sessions.plugin import OneTurnAtATime
from my_agent.settings import model

root_agent = LlmAgent(name="second", model=model())
app = App(name="second", root_agent=root_agent, plugins=[OneTurnAtATime()])
"""


@pytest.mark.two_backends
@pytest.mark.parametrize(
    "line", ["python -m {package} serve", "python -m {package} web", "adk api_server ."]
)
def test_second_agent_is_served_with_the_same_sessions(
    default_project: Project, line: str, tmp_path: Path
) -> None:
    """README.md says how. Folders that are not agents are not listed."""
    second = default_project.folder / "second"
    second.mkdir()
    (second / "agent.py").write_text(SECOND_AGENT.lstrip(), "utf-8")
    (second / "__init__.py").touch()
    try:
        with default_project.server(tmp_path / "data") as uri:
            words = command(default_project, line, uri)
            with default_project.web(*words, uri=uri, log=tmp_path / "log") as web:
                assert web.call("/list-apps") == ["my_agent", "second"]
                web.create("one")
                web.say("one", "My name is Ada.")
                other = Web(web.address, "second")
                other.create("one")
                other.say("one", "Hello.")
                assert len(other.session("one")["events"]) < len(web.session("one")["events"])
    finally:
        shutil.rmtree(second)
