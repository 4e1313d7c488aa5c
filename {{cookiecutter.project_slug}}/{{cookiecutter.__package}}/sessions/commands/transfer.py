"""Exports and imports sessions as lines of JSON, for backups and for other databases.

A line is one session: its ids, its state, and its events with their ids and times. Only the contract of
session services is used, so a session can move from any backend to any other.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from google.adk.events.event import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.state import State

from ..codec import decode_event, decode_state, encode_event, encode_state
from ..errors import SessionStoreError
from ..service import PersistentSessionService
from ..session import PersistentSession
from ..ttl import parse_ttl

FORMAT = 1
SHARED = (State.APP_PREFIX, State.USER_PREFIX)


class TransferError(SessionStoreError):
    """The line is not an exported session, or the session already exists."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The session of a line."""

    app_name: str
    user_id: str
    session_id: str
    ttl: int
    state: dict[str, Any]
    events: list[Event]

    def __str__(self) -> str:
        return f"session {self.session_id!r} of user {self.user_id!r} in app {self.app_name!r}"


def dump(session: PersistentSession) -> dict[str, Any]:
    """Return a session as JSON data."""
    return {
        "format": FORMAT,
        "app": session.app_name,
        "user": session.user_id,
        "id": session.id,
        "ttl": session.ttl,
        "state": {key: json.loads(data) for key, data in encode_state(session.state).items()},
        "events": [
            json.loads(encode_event(event, event.actions.state_delta)) for event in session.events
        ],
    }


def parse(line: str) -> Exported:
    """Return the session of a line.

    Raises:
        TransferError: the line is not an exported session.
    """
    try:
        data = json.loads(line)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise TransferError(f"it is not an exported session of format {FORMAT}")
        names = [data[name] for name in ("app", "user", "id")]
        if not all(isinstance(name, str) for name in names):
            raise TransferError("app, user and id are not all texts")
        state = {key: json.dumps(value).encode() for key, value in data["state"].items()}
        return Exported(
            app_name=names[0],
            user_id=names[1],
            session_id=names[2],
            ttl=parse_ttl(data["ttl"]),
            state=decode_state(state),
            events=[decode_event(json.dumps(event).encode()) for event in data["events"]],
        )
    except SessionStoreError as error:
        raise TransferError(str(error)) from error
    except KeyError as error:
        raise TransferError(f"{error} is missing") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise TransferError(
            f"it is not an exported session ({str(error).partition(chr(10))[0]})"
        ) from error


async def restore(service: PersistentSessionService, sessions: Sequence[Exported]) -> None:
    """Create the sessions with their events: all of them, or none.

    Raises:
        TransferError: one of them already exists, or could not be written.
    """
    for session in sessions:
        if await exists(service, session):
            raise TransferError(f"{session} is there already: delete it first.")
    created: list[Exported] = []
    try:
        for session in sessions:
            await _create(service, session, created)
        await _restore_shared_state(service, sessions)
    except BaseException as error:
        for session in created:
            await delete(service, session)
        if isinstance(error, Exception):
            raise TransferError(f"Nothing was imported: {error}") from error
        raise


async def exists(service: PersistentSessionService, session: Exported) -> bool:
    """Return whether the session exists."""
    found = await service.get_session(
        app_name=session.app_name,
        user_id=session.user_id,
        session_id=session.session_id,
        config=GetSessionConfig(num_recent_events=0),
    )
    return found is not None


async def delete(service: PersistentSessionService, session: Exported) -> None:
    """Delete the session."""
    await service.delete_session(
        app_name=session.app_name, user_id=session.user_id, session_id=session.session_id
    )


async def _create(
    service: PersistentSessionService, session: Exported, created: list[Exported]
) -> None:
    """Create a session, add it to `created`, and append its events."""
    target = await service.create_session(
        app_name=session.app_name,
        user_id=session.user_id,
        session_id=session.session_id,
        state={key: value for key, value in session.state.items() if not key.startswith(SHARED)},
        ttl=session.ttl,
    )
    created.append(session)
    for event in session.events:
        await service.append_event(target, event)


async def _restore_shared_state(
    service: PersistentSessionService, sessions: Sequence[Exported]
) -> None:
    """Set the state of users and apps to that of the export.

    The appended events have set it to older values, which other sessions may have changed later.
    """
    shared: dict[tuple[str, str], dict[str, Any]] = {}
    for session in sessions:
        state = {key: value for key, value in session.state.items() if key.startswith(SHARED)}
        shared.setdefault((session.app_name, session.user_id), {}).update(state)
    for (app_name, user_id), state in shared.items():
        if state:
            await set_shared_state(service, app_name, user_id, state)


async def set_shared_state(
    service: PersistentSessionService, app_name: str, user_id: str, state: dict[str, Any]
) -> None:
    """Set `user:` and `app:` state without an event, which only a creation can: a passing session does."""
    passing = await service.create_session(
        app_name=app_name, user_id=user_id, session_id=uuid4().hex, state=state
    )
    await service.delete_session(app_name=app_name, user_id=user_id, session_id=passing.id)
