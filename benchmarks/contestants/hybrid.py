"""PostgreSQL with Redis in front, measured against PostgreSQL alone, which is what an event waits for.

The server of its tests does not wait for the disk; the floor and ADK's service are on the same one.
"""

from .postgres import REQUIREMENTS, open_floor, open_rivals

__all__ = ["REQUIREMENTS", "open_floor", "open_rivals"]
