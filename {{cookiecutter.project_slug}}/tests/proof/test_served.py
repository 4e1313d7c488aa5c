"""What a platform expects of `serve`: its settings from the environment, and a quick answer of `/ready`."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from google.adk.cli import main as adk

from {{ cookiecutter.__package }}.sessions import server
from {{ cookiecutter.__package }}.sessions.factory import opened_for_adk
from {{ cookiecutter.__package }}.sessions.store import SessionStore

from ..sessions.test_server import client


def test_platform_sets_host_port_and_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HOST", "0.0.0.0"), ("PORT", "8080"), ("WEB_CONCURRENCY", "3")):  # noqa: S104
        monkeypatch.setenv(name, value)
    command = server.serve_command(adk.commands["api_server"])
    with command.make_context("serve", []) as context:
        assert context.params["host"] == "0.0.0.0"  # noqa: S104
        assert context.params["port"] == 8080
        assert context.params["workers"] == 3
    with command.make_context("serve", ["--host=127.0.0.1", "--port=9"]) as context:
        assert context.params["host"] == "127.0.0.1", "the command line wins"
        assert context.params["port"] == 9


@pytest.fixture
async def served(uri: str) -> AsyncIterator[tuple[httpx.AsyncClient, SessionStore]]:
    """A client of a server, and the store that the server asks."""
    known = set(opened_for_adk)
    async with client(uri) as http:
        [service] = set(opened_for_adk) - known
        yield http, service.store.innermost


async def test_store_that_does_not_answer_is_not_ready_within_the_limit(
    served: tuple[httpx.AsyncClient, SessionStore],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    http, store = served

    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(store, "ping", hang)
    monkeypatch.setattr(server, "READY_TIMEOUT", 0.1)
    response = await http.get("/ready")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "sessions": "unavailable"}
    assert "the session store did not answer within 0.1 s" in caplog.text
    assert (await http.get("/health")).status_code == 200, "the process itself is alive"


async def test_probes_share_an_answer(
    served: tuple[httpx.AsyncClient, SessionStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    http, store = served
    ping, asked = store.ping, []

    async def counted() -> None:
        asked.append(1)
        await ping()

    monkeypatch.setattr(store, "ping", counted)
    monkeypatch.setattr(server, "READY_CACHE", 3_600)
    await asyncio.gather(*(http.get("/ready") for _ in range(10)))
    assert len(asked) == 1
    monkeypatch.setattr(server, "READY_CACHE", 0)
    response = await http.get("/ready")
    assert response.status_code == 200
    assert len(asked) == 2, "later, the store is asked again"
