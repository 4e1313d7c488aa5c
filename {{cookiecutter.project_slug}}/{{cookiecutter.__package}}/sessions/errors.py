"""Errors of this package. The text of each is one sentence that is fit for a terminal.

What ADK itself defines is raised as ADK's own class, so that callers need not know this package:
`google.adk.errors.StaleSessionError`, `AlreadyExistsError` and `SessionNotFoundError`.
"""


class SessionStoreError(RuntimeError):
    """Base of what this package raises for reasons that are not the caller's session."""


class ConfigurationError(SessionStoreError, ValueError):
    """A URI, an option or an installation that cannot work, found before anything was opened."""


class StoreUnavailable(SessionStoreError, ConnectionError):
    """The database cannot be reached, refuses us, or did not answer in time."""


class TurnTimeout(SessionStoreError, TimeoutError):
    """A turn waited too long for the turns before it. Nothing of it was stored."""


class RefusedValue(SessionStoreError, ValueError):
    """An id or a value that could not be read again. Nothing was stored. It is also a ValueError."""


class CorruptSession(SessionStoreError):
    """A stored record that cannot be read. It concerns one session and no other."""
