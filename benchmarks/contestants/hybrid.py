"""PostgreSQL with Redis in front, measured against PostgreSQL alone, which is what an event waits for."""

from .postgres import REQUIREMENTS, SERVER, open_floor, open_rivals

__all__ = ["REQUIREMENTS", "SERVER", "open_floor", "open_rivals"]
