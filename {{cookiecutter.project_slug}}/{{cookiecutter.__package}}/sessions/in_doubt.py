"""Appends with an unknown outcome."""

from collections import OrderedDict

from .store import SessionKey

MAX_ATTEMPTS = 10_000
"""The most recent attempts are remembered; each takes some hundred bytes until it is settled."""

Attempt = tuple[SessionKey, str, str]
"""The session, its incarnation, and the id of the event."""


class InDoubtAppends:
    """Remembers appends that ended in a network error, a time-out or a cancellation.

    A caller may retry such an event through a copy of the session that was read since, with a filter
    that left this very event out. Only the service that made the attempt knows where to look for it.
    """

    def __init__(self) -> None:
        self._revisions: OrderedDict[Attempt, int] = OrderedDict()

    def note(self, attempt: Attempt, revision: int) -> None:
        """Remember the revision that the event has if it was stored. The first attempt counts."""
        self._revisions.setdefault(attempt, revision)
        if len(self._revisions) > MAX_ATTEMPTS:
            self._revisions.popitem(last=False)

    def revision(self, attempt: Attempt) -> int | None:
        """Return the revision that the event has if it was stored."""
        return self._revisions.get(attempt)

    def settle(self, attempt: Attempt) -> None:
        """Forget an attempt whose event is known to be stored."""
        self._revisions.pop(attempt, None)

    def clear(self) -> None:
        """Forget all attempts."""
        self._revisions.clear()
