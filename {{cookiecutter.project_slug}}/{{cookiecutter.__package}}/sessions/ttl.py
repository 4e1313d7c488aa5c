"""Times to live: `90s`, `30m`, `24h`, `7d`, plain seconds, or `0` for ever."""

import re

from .errors import ConfigurationError

NEVER = 0
MAX_TTL = 36_500 * 86_400
"""Seconds in a hundred years. Every database can store such an expiry date."""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TTL = re.compile(r"([0-9]{1,12})([smhd]?)")


def parse_ttl(value: str | int) -> int:
    """Return a time to live in whole seconds. 0 means that the session never expires.

    Raises:
        ConfigurationError: the value is not a time to live, or is longer than a hundred years.
    """
    match = None if isinstance(value, bool) else _TTL.fullmatch(str(value))
    if match is None:
        raise ConfigurationError(
            f"ttl {value!r} is not a time to live: write seconds or 90s, 30m, 24h, 7d, or 0 for never."
        )
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > MAX_TTL:
        raise ConfigurationError(f"ttl {value!r} is longer than 100 years: write 0 for never.")
    return seconds


def format_ttl(seconds: float) -> str:
    """Return the shortest exact spelling, in the largest unit that divides it: `24h`, `90s`, `never`."""
    whole = int(seconds)
    if whole == NEVER:
        return "never"
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole % size == 0 and whole // size > (1 if unit == "d" else 0):
            return f"{whole // size}{unit}"
    return f"{whole}s"
