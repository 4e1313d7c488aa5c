"""Tests of your agent. They are yours: change them together with the agent."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.adk.runners import Runner
from google.genai import types

from {{ cookiecutter.__package }}.agent import root_agent
from {{ cookiecutter.__package }}.sessions.config import BACKEND_TITLE
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.settings import APP_NAME

from .sessions.scripted import Scripted

Call = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def call(service: PersistentSessionService) -> Call:
    """Let the agent call a tool in a stored session, and return the tool's result.

    A scripted model stands in for Gemini. It calls the tool that the message names.
    """
    agent = root_agent.clone(update={"model": Scripted()})
    runner = Runner(
        app_name=APP_NAME, agent=agent, session_service=service, auto_create_session=True
    )

    async def call(
        tool: str, user: str = "ada", session: str = "first", **arguments: Any
    ) -> dict[str, Any]:
        text = f"{tool} {json.dumps(arguments)}"
        message = types.Content(role="user", parts=[types.Part(text=text)])
        answer = ""
        async for event in runner.run_async(user_id=user, session_id=session, new_message=message):
            parts = (event.content.parts if event.content else None) or []
            answer = "".join(part.text or "" for part in parts) or answer
        result: dict[str, Any] = json.loads(answer)
        return result

    return call


async def test_user_fact_is_known_in_all_sessions_of_the_user(call: Call) -> None:
    await call("remember", key="name", value="Ada")
    assert (await call("recall", key="name"))["value"] == "Ada"
    assert (await call("recall", key="Name", session="second"))["value"] == "Ada"
    assert await call("recall", key="name", user="grace") == {"key": "name", "known": False}


async def test_app_fact_is_known_to_other_users(call: Call) -> None:
    await call("remember", key="door code", value="42", scope="app")
    assert (await call("recall", key="door code", user="grace"))["value"] == "42"


async def test_session_fact_stays_in_its_session(call: Call) -> None:
    await call("remember", key="topic", value="whales", scope="session")
    assert (await call("recall", key="topic"))["value"] == "whales"
    assert not (await call("recall", key="topic", session="second"))["known"]


async def test_newer_fact_replaces_older_one(call: Call) -> None:
    await call("remember", key="colour", value="green")
    await call("remember", key="colour", value="dark blue")
    assert (await call("recall", key="colour"))["value"] == "dark blue"


async def test_recall_without_a_key_returns_every_fact_by_scope(call: Call) -> None:
    await call("remember", key="name", value="Ada")
    await call("remember", key="topic", value="whales", scope="session")
    known = await call("recall")
    assert known == {"facts": {"session": {"topic": "whales"}, "user": {"name": "Ada"}, "app": {}}}


async def test_removed_fact_is_unknown(call: Call, service: PersistentSessionService) -> None:
    """ADK sets a key to None when it rewinds a session."""
    await service.create_session(
        app_name=APP_NAME, user_id="ada", session_id="first", state={"topic": None}
    )
    assert not (await call("recall", key="topic"))["known"]
    assert (await call("recall"))["facts"]["session"] == {}


@pytest.mark.parametrize(("ttl", "left"), [("30m", "29m"), (0, "never")])
async def test_session_report_names_backend_and_expiry(
    call: Call, service: PersistentSessionService, ttl: str | int, left: str
) -> None:
    await service.create_session(app_name=APP_NAME, user_id="ada", session_id="first", ttl=ttl)
    report = await call("session_report")
    assert (report["session"], report["user"], report["events"]) == ("first", "ada", 2)
    assert BACKEND_TITLE in report["backend"]
    assert report["expires_in"].startswith(left) or report["expires_in"] == "30m"
