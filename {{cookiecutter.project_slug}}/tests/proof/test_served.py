"""`serve`: settings of the platform, a quick answer of `/ready`, and what clients are told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from google.adk.cli import main as adk

from {{ cookiecutter.__package }}.sessions import server
from {{ cookiecutter.__package }}.sessions.factory import opened_for_adk
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..sessions.programs import message
from ..sessions.support import until
from ..sessions.test_server import SESSIONS, client, start_turn

Served = tuple[httpx.AsyncClient, PersistentSessionService]


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
async def served(uri: str) -> AsyncIterator[Served]:
    """A client of a server, and the service of the server."""
    known = set(opened_for_adk)
    async with client(uri) as http:
        [service] = set(opened_for_adk) - known
        yield http, service


async def test_message_that_waits_for_a_deleted_session_returns_404(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    http, service = served
    await http.post(SESSIONS, json={"session_id": "s"})
    first = await start_turn(http, "s", tmp_path / "held")
    second = asyncio.create_task(http.post("/run", json=message("s", "next")))
    [queue] = service.turns._queues.values()
    await until(lambda: len(queue) == 2)
    assert (await http.delete(f"{SESSIONS}/s")).status_code == 200
    (tmp_path / "held").unlink()
    for request in (first, second):
        response = await request
        assert response.status_code == 404
        assert response.json()["detail"].startswith("Session not found")
    assert not [record for record in caplog.records if record.exc_info]


async def test_invalid_ttl_returns_422_with_its_text(served: Served) -> None:
    http, _ = served
    response = await http.post(SESSIONS, json={"options": {"ttl": "soon"}})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("ttl 'soon' is not a time to live")


async def test_store_that_does_not_answer_is_not_ready_within_the_limit(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    http, service = served

    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(service.store.innermost, "ping", hang)
    monkeypatch.setattr(server, "READY_TIMEOUT", 0.1)
    response = await http.get("/ready")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "sessions": "unavailable"}
    assert "the session store did not answer within 0.1 s" in caplog.text
    assert (await http.get("/health")).status_code == 200, "the process itself is alive"


async def test_probes_share_an_answer(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    http, service = served
    store = service.store.innermost
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
