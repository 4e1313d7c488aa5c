"""Helpers for tests: events, sessions and unusual ids."""

import asyncio
from collections.abc import Callable
from typing import Any

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.session import Session
from google.genai import types

from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

APP, USER, SESSION = "app", "user", "session"

ODD_IDS = [
    "",
    "a:b",
    "a/b",
    "../b",
    ".",
    "{a}",
    "a}b{c",
    "%2F",
    "100%",
    "*",
    "a[b]?",
    "a b",
    "'; DROP TABLE sessions; --",
    '"\\',
    "__name__",
    "$where",
    "line\nbreak",
    "null\x00byte",
    "Ω≈ç√",
    "\u202eright-to-left",
    "👩‍💻",
    "é",
    "e\u0301",
    "x" * 2_000,
]
"""Valid ids. Two of them look the same but differ."""


def event(
    text: str = "hello", *, timestamp: float = 1.0, author: str = "user", **state: Any
) -> Event:
    """Return an event with a text and a state delta. `user__name` stands for `user:name`."""
    delta = {name.replace("__", ":"): value for name, value in state.items()}
    return Event(
        author=author,
        invocation_id="invocation",
        timestamp=timestamp,
        content=types.Content(role=author, parts=[types.Part(text=text)]),
        actions=EventActions(state_delta=delta),
    )


def texts(session: Session) -> list[str | None]:
    """Return the texts of a session's events."""
    return [
        item.content.parts[0].text if item.content and item.content.parts else None
        for item in session.events
    ]


async def create(service: BaseSessionService, session_id: str = SESSION, **more: Any) -> Session:
    """Create a session of `APP` and `USER`, unless others are given."""
    names = {"app_name": APP, "user_id": USER} | more
    return await service.create_session(session_id=session_id, **names)


async def get(service: BaseSessionService, session_id: str = SESSION, **more: Any) -> Session:
    """Return a session that must exist."""
    names = {"app_name": APP, "user_id": USER} | more
    session = await service.get_session(session_id=session_id, **names)
    assert session is not None
    return session


async def exists(service: BaseSessionService, session_id: str = SESSION, **more: Any) -> bool:
    """Return whether a session exists."""
    names = {"app_name": APP, "user_id": USER} | more
    return await service.get_session(session_id=session_id, **names) is not None


async def until(happened: Callable[[], bool]) -> None:
    """Wait until it has happened. The limit is generous, because a busy machine is slow."""
    for _ in range(1_200):
        if happened():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("It did not happen.")


def with_options(uri: str, options: str) -> str:
    """Return a session URI with more options."""
    return f"{uri}{'&' if '?' in uri else '?'}{options}"


MARK = "planted0mark"


async def plant_and_erase(service: PersistentSessionService) -> None:
    """Store `MARK` in all that a user can have, also replaced, deleted and expired, and erase the user."""
    for number in range(20):
        state = {"own": MARK, "user:a": f"{MARK} {number}", f"user:{MARK}": {MARK: number}}
        more: Any = {"user_id": MARK, "state": state, "ttl": 1 if number % 5 == 0 else 0}
        session = await create(service, f"{MARK}-{number}", **more)
        for turn in range(3):
            said = event(MARK * 10**turn, own=MARK * turn, user__a=f"{turn} {MARK}")
            await service.append_event(session, said)
        await get(service, session.id, user_id=MARK)
        if number % 5 == 1:
            await service.delete_session(app_name=APP, user_id=MARK, session_id=session.id)
    await create(service, user_id="other")
    await service.erase(app_name=APP, user_id=MARK)
