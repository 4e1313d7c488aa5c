"""Persistent sessions: `register()` for ADK, `create_session_service()` for your code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .service import PersistentSessionService

__all__ = ["create_session_service", "register"]


def register() -> None:
    """Register the URI scheme of this project with ADK, for its command line and its servers.

    It is cheap and may be repeated. It uses neither the driver nor the database.
    """
    from .factory import register_schemes

    register_schemes()


def create_session_service(uri: str | None = None, **options: Any) -> PersistentSessionService:
    """Return the session service of a URI. It connects on first use.

    Args:
        uri: by default, `SESSION_SERVICE_URI` from the environment or `.env`, or else `DEFAULT_URI`.
        options: options of the URI, such as `ttl="30m"`. They win over those in the URI.

    Raises:
        ConfigurationError: the URI, an option or the installation cannot work.
    """
    from .factory import build_service

    return build_service(uri, **options)
