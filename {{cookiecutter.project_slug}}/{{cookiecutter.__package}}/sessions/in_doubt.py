"""Appends with an unknown outcome."""

from collections import OrderedDict

from .store import SessionKey

MAX_ATTEMPTS = 10_000
"""Only the most recent attempts are remembered. Each takes some hundred bytes."""

Attempt = tuple[SessionKey, str, str]
"""The session, its incarnation, and the id of the event."""


class InDoubtAppends:
    """Remembers appends that ended in a network error, a time-out or a cancellation.

    A caller may retry such an event through a newer copy of the session whose filter left the event out. Only
    this service knows the revision that the event would have.
    """

    def __init__(self) -> None:
        self._revisions: OrderedDict[Attempt, int] = OrderedDict()

    def note(self, attempt: Attempt, revision: int) -> None:
        """Remember the revision of the event if it was stored. The first attempt counts."""
        self._revisions.setdefault(attempt, revision)
        if len(self._revisions) > MAX_ATTEMPTS:
            self._revisions.popitem(last=False)

    def revision(self, attempt: Attempt) -> int | None:
        """Return the revision of the event if it was stored."""
        return self._revisions.get(attempt)

    def settle(self, attempt: Attempt) -> None:
        """Forget an attempt whose event is known to be stored."""
        self._revisions.pop(attempt, None)

    def clear(self) -> None:
        """Forget all attempts."""
        self._revisions.clear()
