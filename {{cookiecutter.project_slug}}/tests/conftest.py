"""Fixtures: a real server, a namespace on it for each test, and session services."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.in_memory_session_service import InMemorySessionService

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from .servers import namespace, serve


@pytest.fixture(scope="session")
def server_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of the server: SESSION_SERVICE_URI, or a server that runs as long as the tests."""
    if given := os.environ.get("SESSION_SERVICE_URI"):
        yield given
        return
    directory: Path = tmp_path_factory.mktemp("server")
    with serve(directory, lasting=False) as uri:
        yield uri


@pytest.fixture
def uri(server_uri: str) -> Iterator[str]:
    """A namespace on the server for one test."""
    with namespace(server_uri) as own:
        yield own


@pytest.fixture
def clear_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """No SESSION_KEYS, for tests that look at stored records or count calls of the store."""
    monkeypatch.delenv("SESSION_KEYS", raising=False)


@pytest.fixture
async def service(uri: str) -> AsyncIterator[PersistentSessionService]:
    """The session service of this project."""
    async with create_session_service(uri) as service:
        yield service


@pytest.fixture(params=["persistent", "in_memory"])
async def any_service(
    request: pytest.FixtureRequest, uri: str
) -> AsyncIterator[BaseSessionService]:
    """This project's service, and ADK's in-memory service as the reference."""
    if request.param == "in_memory":
        yield InMemorySessionService()
        return
    async with create_session_service(uri) as service:
        yield service
