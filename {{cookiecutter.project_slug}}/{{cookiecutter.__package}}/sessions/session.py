"""ADK's Session, with a cursor: where in the stored log this copy of the session stands."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from google.adk.sessions.session import Session
from pydantic import PrivateAttr

from .store import Head, Position
from .turns import Turn


class AppendLock(asyncio.Lock):
    """Orders the appends through one Session object. A copy of the object gets a lock of its own."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "AppendLock":
        return AppendLock()


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a Session object knows of its stored session. Replaced, not changed, when it moves."""

    head: Head
    revisions: dict[str, int] = field(default_factory=dict)
    """The first revision of each event id that was read or appended through the object."""
    lock: AppendLock = field(default_factory=AppendLock)


class PersistentSession(Session, ser_json_bytes="base64"):
    """A Session as `PersistentSessionService` hands it out.

    It equals ADK's in JSON and everywhere else, except that bytes in its state are base64 in JSON, as
    in ADK's events. The cursor is private, so that it goes along with `model_copy` and `copy.deepcopy`,
    and each copy goes stale by itself.
    """

    _cursor: Cursor | None = PrivateAttr(default=None)
    _turn: Turn | None = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        """Compare what ADK's Session compares. The cursor is no part of a session's value."""
        return isinstance(other, Session) and self.__dict__ == other.__dict__

    @property
    def attached(self) -> bool:
        """Whether the object was read from a service. One that was made from JSON has no cursor."""
        return self._cursor is not None

    @property
    def cursor(self) -> Cursor:
        """Where the object stands.

        Raises:
            ValueError: the object was not read from a service.
        """
        if self._cursor is None:
            raise ValueError("This session was not read from a session service.")
        return self._cursor

    @property
    def head(self) -> Head:
        """The session's record as of the last read or append through this object."""
        return self.cursor.head

    @property
    def position(self) -> Position:
        """The revision that this object has seen, and of which incarnation."""
        return self.head.position

    @property
    def revision(self) -> int:
        """How many events the stored session has, including those that a filter left out here."""
        return self.head.position.revision

    @property
    def ttl(self) -> int:
        """Seconds that the session lives after its last event; 0 means for ever."""
        return self.head.ttl

    @property
    def expires_at(self) -> float | None:
        """Epoch seconds at which the session expires unless it gets another event; None for never."""
        return self.head.expires_at

    @property
    def turn(self) -> Turn | None:
        """The turn that this object was given, if that has not ended."""
        return self._turn if self._turn and not self._turn.ended else None

    @turn.setter
    def turn(self, turn: Turn | None) -> None:
        self._turn = turn

    def advance(self, head: Head, event_ids: Iterable[str]) -> None:
        """Move the cursor over events that were read or appended, to the record `head`."""
        cursor = self.cursor
        for revision, event_id in enumerate(event_ids, cursor.head.position.revision + 1):
            cursor.revisions.setdefault(event_id, revision)
        self._cursor = replace(cursor, head=head)

    def attach(self, cursor: Cursor) -> "PersistentSession":
        """Give this object a place in a stored log, and return it."""
        self._cursor = cursor
        return self
