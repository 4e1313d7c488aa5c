"""How much was tried: every test that repeats something says how often, and can do it at length.

`make test` is for every day and takes less than a minute; `make proof` sets PROOF=long and takes as long
as it takes. The figures stand below the results of either, and in pytest's XML report.
"""

import os
from collections.abc import Callable

from ..servers import EFFORT

Figure = Callable[[str, object], None]
"""Notes a figure of a test: what was counted, and how many."""

LONG = os.environ.get("PROOF") == "long"


def long_or_short(long: int, short: int) -> int:
    """Return how many take part in this run."""
    return long if LONG else short


def repetitions(long: int, short: int) -> int:
    """Return how often something is to be done in this run."""
    return long if LONG else max(1, round(short * EFFORT))
