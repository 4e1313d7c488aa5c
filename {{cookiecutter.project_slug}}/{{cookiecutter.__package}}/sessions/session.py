"""ADK's Session, with the place in the log that it was read at."""

import asyncio
from dataclasses import dataclass
from typing import Any

from google.adk.sessions.session import Session
from pydantic import PrivateAttr

from .store import Head, Position


class AppendLock(asyncio.Lock):
    """Puts the appends through one Session object in order; a copy of the object has its own."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "AppendLock":
        return AppendLock()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Session object stands. One attribute, because pydantic charges for each."""

    head: Head
    read: dict[str, int]
    """The revisions of the events that the object was read with, and perhaps of others, by id."""
    appended: dict[str, int]
    """Those of the events that were appended through it."""
    lock: AppendLock


class PersistentSession(Session):
    """A Session as `PersistentSessionService` hands it out.

    It looks like ADK's in JSON and everywhere else. What it carries beside ADK's fields is private,
    so that it goes along with `model_copy` and `copy.deepcopy`, and each copy goes stale by itself.
    """

    _place: Place = PrivateAttr()

    def __eq__(self, other: object) -> bool:
        """Compare what ADK's Session compares: where it was read from is no part of a session."""
        return isinstance(other, Session) and self.__dict__ == other.__dict__

    @property
    def placed(self) -> bool:
        """Whether the object comes from a service; one that comes from JSON has no place in a log."""
        return "_place" in (self.__pydantic_private__ or ())

    @property
    def place(self) -> Place:
        """Where this object stands, found in a tenth of the time that pydantic takes to look it up."""
        place: Place = (self.__pydantic_private__ or {})["_place"]
        return place

    @property
    def head(self) -> Head:
        """The session's record as of the last read or append through this object."""
        return self.place.head

    @property
    def position(self) -> Position:
        """Where in its log the session stands."""
        return self.place.head.position

    @property
    def revision(self) -> int:
        """How many events the stored session has, however many of them a filter left out here."""
        return self.place.head.position.revision

    @property
    def ttl(self) -> int:
        """Seconds that the session lives after its last event; 0 means for ever."""
        return self.place.head.ttl

    @property
    def expires_at(self) -> float | None:
        """Epoch seconds at which the session expires unless it gets another event; None is never."""
        return self.place.head.expires_at

    @property
    def lock(self) -> AppendLock:
        """Held while an event is appended through this object."""
        return self.place.lock

    def at(self, head: Head, read: dict[str, int]) -> "PersistentSession":
        """Move this object to a place in the log, with the revisions of events known by id."""
        self._place = Place(head, read, {}, AppendLock())
        return self

    def revision_of(self, event_id: str) -> int | None:
        """Return the first revision of an id that this object was read with, or that it appended."""
        place = self.place
        return place.read.get(event_id) or place.appended.get(event_id)

    def appended(self, event_id: str, head: Head) -> None:
        """Note that an event was stored through this object."""
        place = self.place
        place.appended.setdefault(event_id, head.position.revision)
        self._place = Place(head, place.read, place.appended, place.lock)
