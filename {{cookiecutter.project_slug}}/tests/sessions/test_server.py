"""`serve` returns errors of the session store with a status, and finishes running turns at shutdown."""

import asyncio
import json
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.server import (
    answer_error,
    create_app,
)

from .programs import AGENTS, PYTHON, USER, Server, message
from .support import event, until, with_options

SESSIONS = f"/apps/noter/users/{USER}/sessions"


@asynccontextmanager
async def client(uri: str, agents: Path = AGENTS, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the agents of the tests in this process, with more options. The value is a client."""
    options = {"agents_dir": str(agents), "session_service_uri": uri, "web": False, **more}
    app = await asyncio.to_thread(create_app, options)  # it blocks while it checks the store
    # By default, this transport raises unhandled exceptions, which are a 500 in a server.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as http,
    ):
        yield http


async def start_turn(
    http: httpx.AsyncClient, session: str, file: Path
) -> "asyncio.Task[httpx.Response]":
    """Start a turn that lasts until the file is removed."""
    arguments = json.dumps({"path": str(file)})
    held = message(session, f"hold {arguments}")
    request = asyncio.create_task(http.post("/run", json=held))
    await until(file.exists)
    return request


async def test_ids_in_a_path_may_have_any_letters(uri: str) -> None:
    async with client(uri, AGENTS / "noter") as http:
        await http.post("/apps/noter/users/李/sessions", json={"session_id": "é 😀"})
        response = await http.get("/apps/noter/users/李/sessions/é 😀")
        assert response.status_code == 200
        assert response.json()["userId"] == "李"


async def test_stale_write_returns_409(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(uri) as http, create_session_service(uri) as other:
        await http.post(SESSIONS, json={"session_id": "s"})
        request = await start_turn(http, "s", tmp_path / "held")
        session = await other.get_session(app_name="noter", user_id=USER, session_id="s")
        assert session
        await other.append_event(session, event("from elsewhere"))
        (tmp_path / "held").unlink()
        response = await request
        assert response.status_code == 409
        assert response.json()["detail"].startswith("The conversation went on elsewhere: reload it")
    assert not [record for record in caplog.records if record.exc_info]


async def test_message_that_waits_too_long_returns_503(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(with_options(uri, "turn_wait=0.2")) as http:
        await http.post(SESSIONS, json={"session_id": "s"})
        request = await start_turn(http, "s", tmp_path / "held")
        response = await http.post("/run", json=message("s", "impatient"))
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert "busy for 0.2 s with earlier messages" in response.json()["detail"]
        (tmp_path / "held").unlink()
        assert (await request).status_code == 200
        stored = (await http.get(f"{SESSIONS}/s")).json()["events"]
        assert "impatient" not in [said["content"]["parts"][0].get("text") for said in stored]
    assert not [record for record in caplog.records if record.exc_info]


async def test_turn_that_is_cancelled_at_shutdown_returns_503_and_gives_back_its_lease(
    uri: str, tmp_path: Path
) -> None:
    async with client(with_options(uri, "turn_wait=30&turn_lease=60")) as http:
        await http.post(SESSIONS, json={"session_id": "s"})
        request = await start_turn(http, "s", tmp_path / "held")
        request.cancel()  # as uvicorn does after --shutdown_timeout
        response = await request
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert response.json()["detail"].startswith("The server ended before the answer")
        assert (await http.post("/run", json=message("s", "next"))).status_code == 200
        (tmp_path / "held").unlink()


async def test_refused_value_returns_422_with_its_key(uri: str) -> None:
    deep: list[Any] = []
    for _ in range(60):
        deep = [deep]
    async with client(uri) as http:
        await http.post(SESSIONS, json={"session_id": "s"})
        for response in (
            await http.post(SESSIONS, json={"session_id": "t", "state": {"app:deep": deep}}),
            await http.patch(f"{SESSIONS}/s", json={"state_delta": {"app:deep": deep}}),
        ):
            assert response.status_code == 422
            assert response.json()["detail"].startswith("State key 'app:deep' cannot be stored")
        assert (await http.get(f"{SESSIONS}/s")).json()["state"] == {}


async def test_missing_session_returns_404_and_ready_store_200(uri: str) -> None:
    async with client(uri) as http:
        assert (await http.get(f"{SESSIONS}/none")).status_code == 404
        response = await http.get("/ready")
        assert (response.status_code, response.json()) == (200, {"ready": True, "sessions": "ok"})


async def test_errors_of_the_agent_are_not_handled() -> None:
    with pytest.raises(ValueError, match="a mistake of the agent's"):
        await answer_error(None, ValueError("a mistake of the agent's"))  # type: ignore[arg-type]


async def test_draining_server_is_not_ready_but_answers_and_closes_connections(uri: str) -> None:
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        async with client(uri, drain=0.1) as http:
            assert "Connection" not in (await http.get("/list-apps")).headers
            signal.raise_signal(signal.SIGTERM)
            response = await http.get("/ready")
            assert response.status_code == 503
            assert response.json() == {"ready": False, "server": "draining"}
            response = await http.get("/list-apps")
            assert (response.status_code, response.headers["Connection"]) == (200, "close")
            await until(ended.is_set)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_running_turn_finishes_after_sigterm(uri: str, tmp_path: Path) -> None:
    file = tmp_path / "held"
    with Server([*PYTHON, "serve", str(AGENTS)], uri, tmp_path / "log") as server:
        server.ready().create("s", app="noter")

        async def stop_during_a_turn() -> httpx.Response:
            base = server.http.base_url
            async with httpx.AsyncClient(base_url=base, timeout=60, trust_env=False) as http:
                request = await start_turn(http, "s", file)
                server.process.send_signal(signal.SIGTERM)
                await until(lambda: "hutting down" in server.printed())
                file.unlink()
                return await request

        response = asyncio.run(stop_during_a_turn())
        assert response.status_code == 200
        [answer] = response.json()[-1]["content"]["parts"]
        assert json.loads(answer["text"]) == {"held": str(file)}
        server.wait()
        assert "Application shutdown complete" in server.printed()
