"""Who takes part: a module for each backend, by the backend's name.

Each has

    REQUIREMENTS                      what to install beside the project's own dependencies
    open_floor(uri, folder) -> Floor  the least that the database must do for a session
    open_rivals(uri, folder)          ADK's own services on the same server

Only the baked project's Python runs these; a backend without a module is measured by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

Fill = Callable[[Any, Sequence[Any]], Awaitable[None]]


class Floor(Protocol):
    """One round trip for each operation, by the driver that the project uses, and nothing around it."""

    append_is: str
    """What an append is here, for the table."""
    round_trip_is: str

    async def version(self) -> str:
        """Return the name and version of the server."""

    async def put(self, session: str, records: Sequence[bytes]) -> None:
        """Make a session of these records."""

    async def append(self, session: str, record: bytes) -> None:
        """Append one record, durably, if the session is where the writer thinks it is."""

    async def round_trip(self, session: str) -> None:
        """Read the head of a session."""

    async def read(self, session: str, last: int) -> Sequence[bytes]:
        """Return the last records of a session."""

    async def stored_bytes(self) -> int:
        """Return how many bytes the server holds in all."""

    async def close(self) -> None:
        """Release everything."""


@dataclass
class Rival:
    """A session service that takes part."""

    who: str
    service: Any
    fill: Fill | None = None
    """A short cut to a long session: stores events at once, as if they had been appended."""

    async def session(self, name: dict[str, str], events: int, conversation: Any) -> Any:
        """Create a session that has had so many events, and return it as if it had just been read."""
        session = await self.service.create_session(**name)
        had = list(islice(conversation, events))
        if self.fill and len(had) > 20:
            await self.fill(session, had[:-1])
            session = await self.service.get_session(**name)
            had = had[-1:]
        for event in had:
            await self.service.append_event(session, event)
        return session
