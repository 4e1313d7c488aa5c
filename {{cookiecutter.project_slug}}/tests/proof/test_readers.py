"""Every reader can read every accepted value in every scope. Other values are refused before they are written.

The readers are Python code, the export, and ADK's HTTP API.
"""

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from google.adk.cli.fast_api import get_fast_api_app
from google.adk.cli.service_registry import get_service_registry
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.commands.transfer import (
    Found,
    Shared,
    content_from_adk,
    parse,
    shared_from_adk,
    shared_line,
    to_line,
)
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.store import SessionKey

from ..sessions.programs import AGENTS
from ..sessions.support import APP, SESSION, USER, create, get
from .test_events import REFUSED, SIMPLER, VALUES, Order, nested

ACCEPTED: dict[str, Any] = {
    **VALUES,
    **{f"simpler {number}": value for number, (value, _) in enumerate(SIMPLER)},
    "model": Order(text="whales", photo=b"\xff"),
    "logo": b"\x89PNG",
    "keys of bytes": {b"\xff": 1, (b"\xff", 2): 3},
    "no number": [math.nan, math.inf],
    "None": None,
}

REFUSED_JSON = {
    "nested": json.dumps(nested(210)),
    "digits": "9" * 5_000,
    "surrogate": '{"cut \\ud83d": 1}',
    "objects": '{"inner": ' * 210 + "1" + "}" * 210,
}
"""JSON values that cannot be stored."""

SCOPES = pytest.mark.parametrize("prefix", ["", "user:", "app:"], ids=["own", "user", "app"])


@pytest.fixture
async def http(service: PersistentSessionService) -> AsyncIterator[httpx.AsyncClient]:
    """ADK's HTTP API on the service of the test."""
    get_service_registry().register_session_service("given", lambda uri, **_: service)
    app = get_fast_api_app(agents_dir=str(AGENTS), session_service_uri="given://", web=False)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def path(user_id: str, session_id: str = "") -> str:
    return f"/apps/{APP}/users/{user_id}/sessions/{session_id}".rstrip("/")


async def read_by_all(uri: str, http: httpx.AsyncClient, expected: set[str]) -> None:
    """Read the session, and a new one of another user, with every reader."""
    async with create_session_service(uri) as fresh:
        session = await fresh.get_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert session is not None
        assert session.state.keys() == expected
        of_others, content = shared_from_adk(session), content_from_adk(session)
        lines = [to_line(SessionKey(APP, USER, SESSION), content)]
        for each in of_others:
            assert isinstance(each, Shared)
            lines.append(shared_line(each))
        for line in lines:
            (record,) = parse(json.loads(json.dumps(json.loads(line), allow_nan=False)))
            assert record in of_others or (
                isinstance(record, Found) and await record.read() == content
            )
        (listed,) = (await fresh.list_sessions(app_name=APP, user_id=USER)).sessions
        assert listed.state.keys() == expected
        shared = {key for key in expected if key.startswith("app:")}
        assert (await create(fresh, "new", user_id="other")).state.keys() == shared
        assert (await get(fresh, "new", user_id="other")).state.keys() == shared
        assert SESSION in {each.id for each in (await fresh.list_sessions(app_name=APP)).sessions}
    replies = [
        await http.get(path(USER, SESSION)),
        *[await http.get(path(user_id)) for user_id in (USER, "other")],
        await http.get(path("other", "new")),
        await http.post(path("other"), json={"session_id": "newer"}),
        await http.patch(path("other", "new"), json={"state_delta": {"own": 1}}),
    ]
    assert [reply.status_code for reply in replies] == [200] * len(replies)
    assert replies[0].json()["state"].keys() == expected
    assert all(json.dumps(reply.json(), allow_nan=False) for reply in replies)


@SCOPES
async def test_accepted_value_is_readable_by_every_reader(
    service: PersistentSessionService, uri: str, http: httpx.AsyncClient, prefix: str
) -> None:
    first = {prefix + name: value for name, value in list(ACCEPTED.items())[::2]}
    session = await create(service, state=first)
    for name, value in ACCEPTED.items():
        said = Event(author="user", actions=EventActions(state_delta={prefix + name: value}))
        await service.append_event(session, said)
    await read_by_all(uri, http, {prefix + name for name in ACCEPTED})


@SCOPES
async def test_refused_value_affects_no_reader(
    service: PersistentSessionService, uri: str, http: httpx.AsyncClient, prefix: str
) -> None:
    session = await create(service, state={f"{prefix}fine": 1})
    for number, value in enumerate(REFUSED):
        said = Event(author="user", actions=EventActions(state_delta={f"{prefix}{number}": value}))
        with pytest.raises(ValueError, match="cannot be stored"):
            await service.append_event(session, said)
        with pytest.raises(ValueError, match="cannot be stored"):
            await create(service, "refused", state=said.actions.state_delta)
    for name, text in REFUSED_JSON.items():
        state = {prefix + name: "…"}
        for method, to, body in (
            ("POST", path(USER), {"session_id": name, "state": state}),
            ("PATCH", path(USER, SESSION), {"state_delta": state}),
        ):
            content = json.dumps(body, ensure_ascii=False).replace('"…"', text)
            reply = await http.request(
                method, to, content=content, headers={"content-type": "application/json"}
            )
            assert reply.is_error
    await read_by_all(uri, http, {f"{prefix}fine"})
