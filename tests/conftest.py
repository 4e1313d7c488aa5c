"""Fixtures: one shared bake of each backend."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from .baking import BACKENDS, bake
from .installed import SCHEME, Project

TWO = ("sqlite", "redis")
"""A file and a server. Tests of commands, not of stores, run only on these."""


# A slow machine must not fail a test.
hypothesis.settings.register_profile(
    "generator", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("generator")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add an option for CI, which runs everything on every backend."""
    parser.addoption("--thorough", action="store_true", help="all entry points on all backends")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the quick tests first."""
    if not config.getoption("--thorough"):
        items[:] = [item for item in items if not is_left_to_ci(item)]
    items.sort(key=lambda item: item.get_closest_marker("installed") is not None)


def is_left_to_ci(item: pytest.Item) -> bool:
    """Return whether a test runs on two backends only, and this is another one."""
    mark = item.get_closest_marker("two_backends")
    if mark is None or not isinstance(item, pytest.Function):
        return False
    values = item.callspec.params
    backend = values.get("project") or values["default_project"]
    but = mark.kwargs.get("but")
    return backend not in mark.kwargs.get("backends", TWO) and (
        but is None or values.get("line") != but
    )


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend of cookiecutter.json."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def baked(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bake a project of this backend. Tests only read it."""
    return bake(tmp_path_factory.mktemp(backend), backend=backend)


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in BACKENDS],
)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Set up a project of each backend, with a name that breaks bad templates."""
    hostile = 'Agent "O\'Brien" {{ x }} 助手 🤖\n%s \\'
    folder = bake(
        tmp_path_factory.mktemp(request.param),
        project_name=hostile,
        description=hostile,
        author=hostile,
        backend=request.param,
        scheme=SCHEME,
        session_ttl="1h",
        proof="yes",
    )
    project = Project(folder, request.param)
    project.make("setup")
    return project


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(name, marks=pytest.mark.xdist_group(f"default {name}")) for name in BACKENDS
    ],
)
def default_project(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """Set up a default project of each backend in a folder with a space in its path."""
    folder = tmp_path_factory.mktemp(f"default {request.param}")
    project = Project(bake(folder, backend=request.param), request.param)
    project.make("setup")
    return project
