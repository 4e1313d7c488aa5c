"""ADK's Session, with the place in the log that it was read at."""

import asyncio
from typing import Any

from google.adk.sessions.session import Session
from pydantic import PrivateAttr

from .store import Head, Position


class AppendLock(asyncio.Lock):
    """Puts the appends through one Session object in order; a copy of the object has its own."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "AppendLock":
        return AppendLock()


class PersistentSession(Session):
    """A Session as `PersistentSessionService` hands it out.

    It looks like ADK's in JSON and everywhere else. What it carries beside ADK's fields is private,
    so that it goes along with `model_copy` and `copy.deepcopy`, and each copy goes stale by itself.
    """

    _head: Head = PrivateAttr()
    _known: list[dict[str, int]] = PrivateAttr(default_factory=list)
    _lock: AppendLock = PrivateAttr(default_factory=AppendLock)

    def __eq__(self, other: object) -> bool:
        """Compare what ADK's Session compares: where it was read from is no part of a session."""
        return isinstance(other, Session) and self.__dict__ == other.__dict__

    @property
    def head(self) -> Head:
        """The session's record as of the last read or append through this object."""
        return self._head

    @property
    def position(self) -> Position:
        """Where in its log the session stands."""
        return self._head.position

    @property
    def revision(self) -> int:
        """How many events the stored session has, however many of them a filter left out here."""
        return self._head.position.revision

    @property
    def ttl(self) -> int:
        """Seconds that the session lives after its last event; 0 means for ever."""
        return self._head.ttl

    @property
    def expires_at(self) -> float | None:
        """Epoch seconds at which the session expires unless it gets another event; None is never."""
        return self._head.expires_at

    @property
    def lock(self) -> AppendLock:
        """Held while an event is appended through this object."""
        return self._lock

    def at(self, head: Head, known: dict[str, int] | None = None) -> "PersistentSession":
        """Move this object to a place in the log, with the revisions of events known by id."""
        self._head = head
        if known is not None:
            self._known = [known, {}]
        return self

    def revision_of(self, event_id: str) -> int | None:
        """Return the first revision of an id that this object was read with, or that it appended."""
        for known in self._known:
            if event_id in known:
                return known[event_id]
        return None

    def appended(self, event_id: str, head: Head) -> None:
        """Note that an event was stored through this object."""
        self._head = head
        if self._known:
            self._known[-1].setdefault(event_id, head.position.revision)
