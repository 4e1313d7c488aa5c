"""What ADK's `DatabaseSessionService` needs on any database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import Fill


def filling(service: Any) -> Fill:
    """Return what stores many events in one transaction."""
    from google.adk.sessions.schemas.v1 import StorageEvent

    async def fill(session: Any, events: Sequence[Any]) -> None:
        async with service.database_session_factory() as database:
            database.add_all([StorageEvent.from_event(session, event) for event in events])
            await database.commit()

    return fill
