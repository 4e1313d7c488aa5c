"""Names of the objects in a bucket.

| object | name, below the prefix of the session URI | content (`records.py`) |
|---|---|---|
| app state | `app=<app>/state/key=<key>` | a value, and when it was set |
| user state | `app=<app>/user=<user>/state/key=<key>` | likewise |
| head | `app=<app>/user=<user>/session=<session>/head` | settings; state as of the last compaction |
| event | `…/session=<session>/events=<incarnation>/0000000042` | event 42 and the state it changes |
| segment | `…/events=<incarnation>/0000000001-0000000100-<random>` | events 1 to 100 |

Ids and keys are percent-encoded. If that takes more than 200 bytes, a hash replaces them:
`session-sha256=<hash>`. The metadata key `content` has the content of a small object.

Lists are ordered by name. A list that starts at an event has the events from there on, and ends with the head.
"""

import hashlib
from collections.abc import Iterable, Sequence
from urllib.parse import quote, unquote

from ..store import SessionKey
from .bucket import Item

LONGEST = 200
"""Bytes of an encoded id at most. The limit of an object's name is 1,024."""


class Names:
    """The folders of apps, users and sessions. Each ends with a slash."""

    def __init__(self, prefix: str) -> None:
        self.root = f"{prefix}/" if prefix else ""

    def app(self, app_name: str) -> str:
        """Return the folder of an app."""
        return f"{self.root}{_part('app', app_name)}/"

    def user(self, app_name: str, user_id: str) -> str:
        """Return the folder of a user."""
        return f"{self.app(app_name)}{_part('user', user_id)}/"

    def session(self, key: SessionKey) -> str:
        """Return the folder of a session."""
        return f"{self.user(key.app_name, key.user_id)}{_part('session', key.session_id)}/"

    def owners(self, key: SessionKey) -> tuple[str, str]:
        """Return the folders of a session's app and user, whose state it shares."""
        return self.app(key.app_name), self.user(key.app_name, key.user_id)

    def by_folder(self, items: Iterable[Item]) -> dict[str, list[Item]]:
        """Return the objects of users by folder: that of each session, and that of the user's state."""
        folders: dict[str, list[Item]] = {}
        for item in items:
            parts = item.name.removeprefix(self.root).split("/")
            if len(parts) > 3:
                folders.setdefault(f"{self.root}{'/'.join(parts[:3])}/", []).append(item)
        return folders


def user_of(folder: str) -> str | None:
    """Return the user of a folder, or None if its name has only a hash."""
    kind, _, quoted = folder.rstrip("/").rpartition("/")[2].partition("=")
    return unquote(quoted) if kind == "user" else None


def is_session(folder: str) -> bool:
    """Return whether a folder of a user belongs to a session."""
    return not folder.endswith("/state/")


def state_of(owner: str) -> str:
    """Return the folder of the state of an app or a user."""
    return f"{owner}state/"


def value_of(owner: str, key: str) -> str:
    """Return the name of a value of that state."""
    return f"{state_of(owner)}{_part('key', key)}"


def head_of(folder: str) -> str:
    """Return the name of a session's head."""
    return f"{folder}head"


def events_of(folder: str, incarnation: str) -> str:
    """Return the folder of the events and segments of an incarnation."""
    return f"{folder}{_part('events', incarnation)}/"


def event_of(folder: str, incarnation: str, revision: int) -> str:
    """Return the name of an event."""
    return f"{events_of(folder, incarnation)}{revision:010}"


def revision_of(item: Item, folder: str, incarnation: str) -> int:
    """Return the revision of an event of this incarnation, or 0 for another object."""
    number = item.name.removeprefix(events_of(folder, incarnation))
    return int(number) if number.isdecimal() else 0


def has_head(folder: str, items: Sequence[Item]) -> bool:
    """Return whether the objects of a folder include its head, which is the last one."""
    return bool(items) and items[-1].name == head_of(folder)


def _part(kind: str, text: str) -> str:
    """Return a part of a name, which is unique for each text."""
    quoted = quote(text, safe="")
    if len(quoted) <= LONGEST:
        return f"{kind}={quoted}"
    return f"{kind}-sha256={hashlib.sha256(text.encode()).hexdigest()}"
