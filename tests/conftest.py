"""The bakes that tests share: one of each backend, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from .baking import BACKENDS, bake
from .installed import SCHEME, Project


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick tests first: they tell most of what is wrong within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("installed") is not None)


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend of cookiecutter.json in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def baked(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project of this backend as it falls out of the oven; tests only read it."""
    return bake(tmp_path_factory.mktemp(backend), backend=backend)


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in BACKENDS],
)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Set up a project of each backend with `make setup`, with a name that breaks bad templates."""
    hostile = 'Agent "O\'Brien" {{ x }} 助手 🤖\n%s \\'
    folder = bake(
        tmp_path_factory.mktemp(request.param),
        project_name=hostile,
        description=hostile,
        author=hostile,
        backend=request.param,
        scheme=SCHEME,
        session_ttl="1h",
    )
    project = Project(folder, request.param)
    project.make("setup")
    return project
