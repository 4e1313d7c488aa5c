"""ADK's own services: a module for each backend, by the backend's name.

Each has

    REQUIREMENTS          what to install beside the project's own dependencies
    SERVER                left out by most: settings of the project's test server
    RIVALS                ADK's services on that server: a name, and what opens it for a session URI
    version(uri)          what the server says it is
    stored_bytes(uri)     how many bytes it holds in all

Only the Python of a baked project calls these; a backend without a module is measured by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

Fill = Callable[[Any, Sequence[Any]], Awaitable[None]]
"""A short cut to a long session: stores events at once, as if they had been appended."""

Rival = tuple[Any, Fill | None]
"""A session service, and the short cut if there is one."""

IN_MEMORY = "InMemorySessionService"


def contestants_of(backend: str) -> Any:
    """Return the module of a backend, or None."""
    name = f"{__name__}.{backend}"
    return import_module(name) if find_spec(name) else None


async def open_rival(name: str, backend: str, uri: str) -> Rival:
    """Open a service of ADK's."""
    if name == IN_MEMORY:
        return in_memory()
    rival: Rival = await contestants_of(backend).RIVALS[name](uri)
    return rival


def in_memory() -> Rival:
    """Open the service that keeps nothing."""
    from google.adk.sessions.in_memory_session_service import InMemorySessionService

    service = InMemorySessionService()

    async def fill(session: Any, events: Sequence[Any]) -> None:
        stored = service.sessions[session.app_name][session.user_id][session.id]
        stored.events.extend(events)

    return service, fill
