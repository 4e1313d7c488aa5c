"""Names of objects in `gcs.py`: parts that are different for each text, in an order that lists make use of."""

import hashlib
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from ..store import SessionKey
from .bucket import Item

LONGEST = 200
"""Bytes of an encoded id; a longer one is hashed, because a name has at most 1,024."""


class Names:
    """What the names of objects begin with; all end with a slash."""

    def __init__(self, prefix: str) -> None:
        self.root = f"{prefix}/" if prefix else ""

    def app(self, app_name: str) -> str:
        """Return where all of an app is."""
        return f"{self.root}{part('app', app_name)}/"

    def user(self, app_name: str, user_id: str) -> str:
        """Return where all of a user is."""
        return f"{self.app(app_name)}{part('user', user_id)}/"

    def session(self, key: SessionKey) -> str:
        """Return where all of a session is: its folder."""
        return f"{self.user(key.app_name, key.user_id)}{part('session', key.session_id)}/"

    def owners(self, key: SessionKey) -> tuple[str, str]:
        """Return where the state is that a session shares: that of its app, and of its user."""
        return self.app(key.app_name), self.user(key.app_name, key.user_id)

    def by_folder(self, items: Iterable[Item]) -> dict[str, list[Item]]:
        """Return the objects of sessions by the folder that they are in."""
        folders: dict[str, list[Item]] = {}
        for item in items:
            parts = item.name.removeprefix(self.root).split("/")
            if len(parts) > 3 and parts[2].startswith("session"):
                folders.setdefault(f"{self.root}{'/'.join(parts[:3])}/", []).append(item)
        return folders


def part(kind: str, text: str) -> str:
    """Return a part of a name that is different for each text, and never empty or dots."""
    quoted = quote(text, safe="")
    if len(quoted) <= LONGEST:
        return f"{kind}={quoted}"
    return f"{kind}~{hashlib.sha256(text.encode()).hexdigest()}"


def state_of(owner: str) -> str:
    """Return what the names of a user's or an app's state begin with."""
    return f"{owner}state/"


def value_of(owner: str, key: str) -> str:
    """Return the name of the value of a key of that."""
    return f"{state_of(owner)}{part('key', key)}"


def head_of(folder: str) -> str:
    """Return the name of the head; it comes behind all others of the folder."""
    return f"{folder}~"


def log_of(folder: str, incarnation: str) -> str:
    """Return what the names of events and segments of an incarnation begin with."""
    return f"{folder}{quote(incarnation, safe='').replace('~', '%7E')}/"


def event_of(folder: str, incarnation: str, revision: int) -> str:
    """Return the name of an event."""
    return f"{log_of(folder, incarnation)}{revision:010}"


def revision_of(item: Item, folder: str, incarnation: str) -> int:
    """Return the revision of an event of this incarnation; 0 for any other object."""
    number = item.name.removeprefix(log_of(folder, incarnation))
    return int(number) if number.isdecimal() else 0


def has_head(folder: str, items: Sequence[Item]) -> bool:
    """Whether the head is among the objects of a folder, which is then the last one."""
    return bool(items) and items[-1].name == head_of(folder)
