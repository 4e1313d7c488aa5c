"""Projects of every backend, set up and run with their own commands on a real server."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from .baking import BACKENDS, RULES
from .installed import Project
from .proof import ONCE, promises
from .test_answers import BAD, GOOD

pytestmark = pytest.mark.installed

LEFT_BEHIND = shutil.ignore_patterns(".venv", ".uv", ".data", ".*_cache", "__pycache__")


def test_lint(project: Project) -> None:
    """A fresh bake passes its own format, style and type checks."""
    project.make("lint")


def test_project_tests_pass(project: Project) -> None:
    """They pass without Docker and without a running server, and nothing is skipped for that."""
    said = project.make("test", "ARGS=-rs")
    assert " passed" in said
    assert skipped_without_reason(said) == []


AGENT = """
\"\"\"An agent of one tool.\"\"\"

from google.adk.agents import LlmAgent
from google.adk.apps import App

from .sessions.plugin import OneTurnAtATime


def add(a: int, b: int) -> int:
    \"\"\"Add two numbers.\"\"\"
    return a + b


root_agent = LlmAgent(name="calculator", model="gemini-3.5-flash", tools=[add])
app = App(name="my_agent", root_agent=root_agent, plugins=[OneTurnAtATime()])
"""


@pytest.mark.two_backends
def test_default_project_works(default_project: Project) -> None:
    """It is baked without the proof."""
    default_project.make("lint")
    assert "Your name is Ada" in default_project.make("demo")
    assert " passed" in default_project.make("test", "ARGS=tests/test_agent.py tests/test_demo.py")
    offered = "make proof " in default_project.make("help")
    assert offered == (default_project.backend == "custom"), "only `custom` always has the proof"


@pytest.mark.two_backends
def test_owner_can_replace_the_agent_and_remove_the_demo(
    default_project: Project, tmp_path: Path
) -> None:
    """README.md says so: delete the tests of what was deleted, and all other tests pass."""
    project = Project(tmp_path / "my agents" / "my-agent", default_project.backend)
    shutil.copytree(default_project.folder, project.folder, ignore=LEFT_BEHIND)
    package = project.folder / "my_agent"
    (package / "agent.py").write_text(AGENT.lstrip(), "utf-8")
    for path in (
        package / "tools.py",
        package / "settings.py",
        project.folder / "tests/test_agent.py",
    ):
        path.unlink()
    removal = re.search(
        r"^rm -r .*/demo .*$", (project.folder / "README.md").read_text("utf-8"), re.M
    )
    assert removal
    status, said = project.run("sh", "-c", removal[0])
    assert status == 0, said
    project.make("setup")
    project.make("lint")
    said = project.make("test", "ARGS=-rs")
    assert " passed" in said
    assert skipped_without_reason(said) == []


def skipped_without_reason(said: str) -> list[str]:
    """Return the skipped tests, except those that the superuser cannot run."""
    skipped = [line for line in said.splitlines() if line.startswith("SKIPPED")]
    return [line for line in skipped if "superuser" not in line]


OTHERS = [
    pytest.param(name, kind, marks=pytest.mark.xdist_group(name))
    for name, row in BACKENDS.items()
    for kind in row.get("other_servers", ())
]


@pytest.mark.parametrize(("project", "kind"), OTHERS, indirect=["project"])
def test_promises_hold_on_another_kind_of_server(project: Project, kind: str) -> None:
    """An example is a cluster."""
    tests = project.folder / "tests"
    paths = " ".join(str(path) for path in promises(tests, but=ONCE))
    status, said = project.run("env", f"TEST_SERVER={kind}", "make", "test", f"ARGS={paths}")
    assert status == 0, said


def test_demo(project: Project) -> None:
    """A second process knows the name that the first was told."""
    said = project.make("demo")
    assert "Your name is Ada" in said


def test_help_lists_the_commands(project: Project) -> None:
    """Scripts rely on these names."""
    said = project.make("help")
    for target in "setup dev demo test lint docker-up docker-down clean help".split():
        assert f"make {target} " in said


def test_package_is_importable_from_anywhere(project: Project) -> None:
    """`uv sync` installs the project and its driver."""
    code = (
        f"from {project.package}.sessions import create_session_service, register; register();"
        "from google.adk.sessions import BaseSessionService;"
        "assert isinstance(create_session_service(), BaseSessionService)"
    )
    status, said = project.run(project.tool("python"), "-I", "-c", code)
    assert status == 0, said


def test_no_slug_shadows_an_installed_package(project: Project) -> None:
    """The list of taken names has all modules of the project's dependencies."""
    code = "import json; from importlib.metadata import packages_distributions as found; print(json.dumps(found()))"
    status, said = project.run(project.tool("python"), "-c", code)
    assert status == 0, said
    found: dict[str, list[str]] = json.loads(said)
    wanted = tomllib.loads((project.folder / "pyproject.toml").read_text("utf-8"))
    requirements = [*wanted["project"]["dependencies"], *wanted["dependency-groups"]["dev"]]
    owners = {canonical(re.split(r"[^A-Za-z0-9_.-]", line)[0]) for line in requirements}
    modules = {module for module, of in found.items() if owners & set(map(canonical, of))}
    names = owners | {canonical(module) for module in modules if not module.startswith("_")}
    assert {name for name in names if RULES["slug_problem"](name) is None} == set()


def canonical(name: str) -> str:
    """Return a name as package indexes normalise it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_generator_and_project_accept_the_same_ttls(project: Project) -> None:
    """The question and the session URI accept the same values."""
    code = f"""
import json, sys
from {project.package}.sessions.errors import ConfigurationError
from {project.package}.sessions.ttl import parse_ttl
def accepted(text):
    try:
        parse_ttl(text)
    except ConfigurationError:
        return False
    return True
print(json.dumps([text for text in json.load(sys.stdin) if accepted(text)]))
"""
    everything = json.dumps(GOOD["session_ttl"] + BAD["session_ttl"])
    status, said = project.run(project.tool("python"), "-c", code, typed=everything)
    assert status == 0, said
    assert json.loads(said) == GOOD["session_ttl"]
