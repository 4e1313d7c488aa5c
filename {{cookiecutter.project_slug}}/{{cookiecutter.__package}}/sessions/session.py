"""ADK's Session with a cursor, the position of this copy in the stored log."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from google.adk.sessions.session import Session
from pydantic import PrivateAttr

from .store import Head, Position
from .turns import Turn


class AppendLock(asyncio.Lock):
    """Orders the appends through a Session object. A copy of the object gets its own lock."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "AppendLock":
        return AppendLock()


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a Session object knows about its stored session. It is replaced, never changed."""

    head: Head
    revisions: dict[str, int] = field(default_factory=dict)
    """The first revision of each event id that was read or appended through the object."""
    lock: AppendLock = field(default_factory=AppendLock)


class PersistentSession(Session, ser_json_bytes="base64"):
    """The Session of `PersistentSessionService`.

    It behaves like ADK's, except that bytes in its state are base64 in JSON, as in ADK's events. The cursor is
    a private attribute, so `model_copy` and `copy.deepcopy` copy it, and each copy goes stale independently.
    """

    _cursor: Cursor | None = PrivateAttr(default=None)
    _turn: Turn | None = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        """Compare like ADK's Session, without the cursor."""
        return isinstance(other, Session) and self.__dict__ == other.__dict__

    @property
    def attached(self) -> bool:
        """Whether the object was read from a service. An object from JSON has no cursor."""
        return self._cursor is not None

    @property
    def cursor(self) -> Cursor:
        """The cursor.

        Raises:
            ValueError: the object was not read from a service.
        """
        if self._cursor is None:
            raise ValueError("This session was not read from a session service.")
        return self._cursor

    @property
    def head(self) -> Head:
        """The head of the session as of the last read or append through this object."""
        return self.cursor.head

    @property
    def position(self) -> Position:
        """The incarnation and revision that this object has seen."""
        return self.head.position

    @property
    def revision(self) -> int:
        """The number of stored events, including those that a filter left out."""
        return self.head.position.revision

    @property
    def ttl(self) -> int:
        """Seconds that the session lives after its last event. 0 means for ever."""
        return self.head.ttl

    @property
    def expires_at(self) -> float | None:
        """Epoch seconds at which the session expires without another event. None means never."""
        return self.head.expires_at

    @property
    def turn(self) -> Turn | None:
        """The turn of this object, unless it has ended."""
        return self._turn if self._turn and not self._turn.ended else None

    @turn.setter
    def turn(self, turn: Turn | None) -> None:
        self._turn = turn

    def advance(self, head: Head, event_ids: Iterable[str]) -> None:
        """Move the cursor over events that were read or appended, to `head`."""
        cursor = self.cursor
        for revision, event_id in enumerate(event_ids, cursor.head.position.revision + 1):
            cursor.revisions.setdefault(event_id, revision)
        self._cursor = replace(cursor, head=head)

    def attach(self, cursor: Cursor) -> "PersistentSession":
        """Set the cursor, and return this object."""
        self._cursor = cursor
        return self
