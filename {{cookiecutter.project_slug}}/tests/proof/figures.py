"""How often tests repeat something, in the short form and in the long one.

`make test` runs the short form in less than a minute. `make proof` sets PROOF=long and has no time limit.
Both print the figures below the results and write them to pytest's XML report.
"""

import os
from collections.abc import Callable

from ..servers import EFFORT

Figure = Callable[[str, object], None]
"""Records a figure of a test: its name and its value."""

LONG = os.environ.get("PROOF") == "long"


def long_or_short(long: int, short: int) -> int:
    """Return the number for this run."""
    return long if LONG else short


def repetitions(long: int, short: int) -> int:
    """Return the number of repetitions for this run. Slow test servers reduce the short one."""
    return long if LONG else max(1, round(short * EFFORT))
