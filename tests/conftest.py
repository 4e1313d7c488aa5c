"""The bakes that tests share: one of each backend, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from .baking import BACKENDS, bake


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
