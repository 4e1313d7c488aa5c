"""Names that careless code confuses with one another or with commands."""

import itertools
import random
from collections.abc import Iterable, Iterator

Name = tuple[str, str, str]

JOINTS = [
    *":/|.-_,;#@!~ \\",
    "\x00",
    "\x1f",
    "\n",
    "::",
    "%3A",
    "%2F",
    "}:{",
    "'||'",
    '","',
    "\u2028",
    "\u200b",
]
"""Possible separators of the parts of a key."""

PATTERNS = ["*", "?", "[a-z]", "a*", "%", "_", "a%", ".*", "^a", "a$", "(a|b)", "{a,b}", "**/a"]
"""Names that match others if they are used as patterns."""

PATHS = [".", "..", "../a", "a/..", "a/../b", "./a", "/a", "a/", "a//b", "C:\\a", "~", "%2e%2e/a"]
"""Names that lead elsewhere if they are used as paths."""

CODE = [
    "'",
    "' OR '1'='1",
    "'; DROP TABLE sessions; --",
    '" OR ""="',
    "a'--",
    "$where",
    "$ne",
    '{"$gt": ""}',
    "\x7b\x7ba}}",
    "${a}",
    "%s",
    "{0}",
    "server.call('FLUSHALL')",
    "]] .. server.call('FLUSHALL') .. [[",
    "ARGV[1]",
    "\r\nFLUSHALL\r\n",
    "__name__",
    "__proto__",
    "NULL",
    "None",
    "0",
    "-1",
    "1e9",
    "NaN",
    "true",
]
"""Names with another meaning if they are used as code, queries or numbers."""

LOOKALIKES = [
    "a",
    "A",
    "а",  # Cyrillic
    "ａ",  # full width
    "á",
    "a\u0301",
    "ä",
    "ª",
    "a\u200d",
    "a\u00ad",
    "\ufeffa",
    "ß",
    "ss",
    "ẞ",
    "ﬁ",
    "fi",
    "i",
    "I",
    "ı",
    "İ",
    "K",
    "\u212a",
    "Å",
    "\u212b",
    "\u202ea",
    "a\u202e",
    "👩‍💻",
    "👩💻",
    "👩",
    "e",
    "é",
    "e\u0301",
]
"""Names that are equal after case folding, normalisation or trimming."""

LONG = ["a" * length for length in (63, 64, 127, 128, 255, 256, 511, 512, 1_023, 1_024, 1_500)]
"""Names that are equal after truncation."""

SINGLE = [
    *PATTERNS,
    *PATHS,
    *CODE,
    *LOOKALIKES,
    *LONG,
    "",
    " ",
    "a ",
    " a",
    "a\x00",
    "\x00",
    "\x00a",
]


def joined_pairs(joints: list[str]) -> Iterator[tuple[Name, Name]]:
    """Yield pairs of names that are equal once their parts are joined."""
    for joint in joints:
        yield ("a", f"b{joint}c", "d"), ("a", "b", f"c{joint}d")
        yield (f"a{joint}b", "c", "d"), ("a", f"b{joint}c", "d")
        yield (f"a{joint}b", "c", "d"), ("a", "b", f"c{joint}d")
        yield ("a", joint, "d"), ("a", "", f"{joint}d")
        yield ("a", f"b{joint}", "d"), ("a", "b", f"{joint}d")
        yield (joint, "b", "d"), ("", f"{joint}b", "d")


def random_names(seed: int, count: int) -> list[str]:
    """Return random combinations of all of the above."""
    dice = random.Random(seed)
    parts = [*JOINTS, *SINGLE[:-6], "a", "b", "c"]
    return ["".join(dice.choices(parts, k=dice.randint(1, 4))) for _ in range(count)]


def families(seed: int, count: int) -> Iterator[list[Name]]:
    """Yield groups of names that must be isolated from each other.

    The first groups are fixed. `count` more are random.
    """
    for joint in JOINTS:
        yield _distinct(name for pair in joined_pairs([joint]) for name in pair)
    for names in (PATTERNS, PATHS, CODE, LOOKALIKES, LONG):
        yield _distinct(("a", name, "s") for name in names)
        yield _distinct(("a", "u", name) for name in names)
        yield _distinct((name, "u", "s") for name in names)
    dice = random.Random(seed)
    for number in range(count):
        some = random_names(seed + number, 4)
        yield _distinct(dice.sample(list(itertools.product(some, some, some)), 16))


def _distinct(names: Iterable[Name]) -> list[Name]:
    """Return distinct names. White space around a session id is not part of it."""
    stripped = {(app, user, session.strip()) for app, user, session in names}
    return sorted(name for name in stripped if name[2])
