"""PostgreSQL with Redis in front, beside ADK's service on PostgreSQL alone."""

from .postgres import REQUIREMENTS, RIVALS, SERVER, stored_bytes, version

__all__ = ["REQUIREMENTS", "RIVALS", "SERVER", "stored_bytes", "version"]
