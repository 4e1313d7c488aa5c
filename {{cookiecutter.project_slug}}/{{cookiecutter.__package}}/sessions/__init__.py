"""Sessions that outlive the process: `register()` for ADK, `create_session_service()` for your code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .service import PersistentSessionService

__all__ = ["create_session_service", "register"]


def register() -> None:
    """Teach ADK the URI scheme of this project, for its command line and its servers.

    Cheap and safe to repeat: neither the driver nor the database is touched before a URI is used.
    """
    from .factory import register_schemes

    register_schemes()


def create_session_service(uri: str | None = None, **options: Any) -> PersistentSessionService:
    """Return the session service of a URI; it connects when it is first used.

    Args:
        uri: by default `SESSION_SERVICE_URI` from the environment or from `.env`, else `DEFAULT_URI`.
        options: what the query of the URI may say, `ttl="30m"` for example, and wins over it.

    Raises:
        ConfigurationError: the URI, an option or the installation cannot work.
    """
    from .factory import build_service

    return build_service(uri, **options)
