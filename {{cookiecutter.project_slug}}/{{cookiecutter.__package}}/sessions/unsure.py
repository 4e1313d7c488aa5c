"""Appends of which nobody knows whether they were stored."""

from collections import OrderedDict

from .store import SessionKey

REMEMBERED = 10_000
"""Attempts, the youngest; each takes some hundred bytes until the event is appended again."""

Attempt = tuple[SessionKey, str, str]
"""The session, its mark, and the id of the event."""


class UnsureAppends:
    """Remembers appends that broke off: by an error of the network, a time-out or a cancellation.

    Whoever tries such an event again may do so with a copy of the session that was read since, and with a
    filter that left this very event out. Only the service that made the attempt knows where to look for it.
    """

    def __init__(self) -> None:
        self._revisions: OrderedDict[Attempt, int] = OrderedDict()

    def note(self, attempt: Attempt, revision: int) -> None:
        """Remember which revision the event has if it was stored; the first attempt counts."""
        self._revisions.setdefault(attempt, revision)
        if len(self._revisions) > REMEMBERED:
            self._revisions.popitem(last=False)

    def revision(self, attempt: Attempt) -> int | None:
        """Return the revision that the event has if it was stored."""
        return self._revisions.get(attempt)

    def settle(self, attempt: Attempt) -> None:
        """Forget an event that was stored for certain."""
        self._revisions.pop(attempt, None)

    def clear(self) -> None:
        """Forget all."""
        self._revisions.clear()
