"""Cloud Storage: failures of the network and the server, and their error messages."""

import asyncio
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import google.auth
import pytest
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.auth.credentials import AnonymousCredentials

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers.gcs_faults import answering, proxied
from ..servers.proxy import Fault
from ..sessions.support import create, event, get, texts
from ..sessions.test_gcs import refusal


async def test_slow_bucket_does_not_block_the_event_loop(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (between, service, _):
        between.delay = 0.5
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        await create(service)
        ticking.cancel()
        assert ticks > 10


@pytest.mark.parametrize(
    ("fault", "hint"), [(Fault.REFUSE, "reached"), (Fault.SILENCE, "did not answer")]
)
async def test_unreachable_server_leaves_the_session_unchanged(
    tmp_path: Path, fault: Fault, hint: str
) -> None:
    async with proxied(tmp_path) as (between, service, _):
        session = await create(service)
        said = event("hi", own=1)
        between.fault = fault
        with pytest.raises(StoreUnavailable, match=hint):
            await service.append_event(session, said)
        assert session.events == []
        assert session.state == {}
        between.fault = Fault.NONE
        await service.append_event(session, said)
        assert texts(await get(service)) == ["hi"]


async def test_event_is_stored_once_after_a_lost_reply(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (between, service, _):
        session = await create(service)
        said = event("hi", own=1, user__name="Ada")
        between.fault = Fault.LOSE_REPLY
        with pytest.raises(StoreUnavailable):
            await service.append_event(session, said)
        between.fault = Fault.NONE
        await service.append_event(session, said)
        await service.append_event(session, event("again"))
        stored = await get(service)
        assert texts(stored) == ["hi", "again"]
        assert stored.state == {"own": 1, "user:name": "Ada"}


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_refused_append_leaves_the_session_unchanged(
    service: PersistentSessionService, status: int
) -> None:
    session = await create(service)
    with answering(status) as uri:
        if status >= 500:
            assert f"it answers {status} (because)" in await refusal(uri)
        async with create_session_service(uri) as other:
            with pytest.raises((StoreUnavailable, SessionNotFoundError)):
                await other.append_event(session, event("hi", own=1))
    assert session.events == []
    assert session.state == {}
    await service.append_event(session, event("hi", own=1))


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Welcome to this hotel's network</html>",
        b"[]",
        b"\xff",
        b'{"items": [{"name": 1}]}',
    ],
)
async def test_other_server_is_reported(body: bytes) -> None:
    with answering(200, body) as uri:
        assert "its answer is not one of Google Cloud Storage" in await refusal(uri)


async def test_server_without_http_is_reported() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"-ERR unknown command\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as serving:
        port = serving.sockets[0].getsockname()[1]
        assert await refusal(f"{SCHEME}+http://127.0.0.1:{port}/bucket?timeout=0.3")


async def test_server_without_tls_is_reported(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]
    monkeypatch.setattr(google.auth, "default", lambda **_: (nobody, None))
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", f"https://{urlsplit(uri).netloc}")
    assert "does not speak TLS" in await refusal(f"{SCHEME}://bucket?timeout=0.3")


async def test_silent_server_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        sentence = await refusal(f"{SCHEME}+http://127.0.0.1:{port}/bucket?timeout=0.2")
        assert "it did not answer within 0.2 seconds" in sentence


async def test_closed_port_is_unreachable() -> None:
    assert "cannot be reached" in await refusal(f"{SCHEME}+http://127.0.0.1:1/b?timeout=0.2")


@pytest.mark.parametrize("content", ["secret", "{}", '{"type": "service_account"}'])
async def test_invalid_key_file_is_named_but_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    path = tmp_path / "key.json"
    path.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", os.fspath(path))
    sentence = await refusal(f"{SCHEME}://bucket")
    assert "it needs credentials" in sentence
    assert "secret" not in sentence
