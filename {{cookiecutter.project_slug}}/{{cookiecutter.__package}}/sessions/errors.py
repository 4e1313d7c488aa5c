"""Errors of this package. Each message is one sentence.

`StaleSessionError`, `AlreadyExistsError` and `SessionNotFoundError` are ADK's own, from `google.adk.errors`.
"""


class SessionStoreError(RuntimeError):
    """Base class of the errors of this package."""


class ConfigurationError(SessionStoreError, ValueError):
    """The URI, an option or the installation cannot work."""


class StoreUnavailable(SessionStoreError, ConnectionError):
    """The database cannot be reached, refuses the call, or did not answer in time."""


class TurnTimeout(SessionStoreError, TimeoutError):
    """A turn waited too long for earlier turns. Nothing of it was stored."""


class RefusedValue(SessionStoreError, ValueError):
    """An id or a value that could not be read again. Nothing was stored. It is also a ValueError."""


class CorruptSession(SessionStoreError):
    """A stored record cannot be read. Other sessions are not affected."""
