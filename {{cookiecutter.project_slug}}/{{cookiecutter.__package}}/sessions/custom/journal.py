"""The journal of `store.py`: a file with a line of JSON for each change, written under a lock.

The lock is a file beside the journal, and the journal is open only while the lock is held. So any number of
processes on one machine can share a journal, and one of them can replace it. A process that is killed while it
writes leaves half a line at the end. That change was not acknowledged: it is not read, and the next change
overwrites it.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from ..errors import ConfigurationError, StoreUnavailable
from ..store import Head, Position, ScopedState, SessionKey, StoredEvent

FORMAT = "sessions 1"
GROWTH = 1_000
"""A journal is rewritten once it has this many lines more than twice its initial number."""


@dataclass(frozen=True, slots=True)
class Change:
    """The changes of one operation. Without a head, the session is removed."""

    key: SessionKey
    head: Head | None
    state: ScopedState = field(default_factory=ScopedState)
    event: StoredEvent | None = None

    def to_line(self) -> bytes:
        """Return the change as JSON. Bytes are written as Latin-1 letters."""
        key, state, head, event = self.key, self.state, None, None
        if self.head:
            at = self.head.position
            head = (
                at.incarnation,
                at.revision,
                self.head.updated_at,
                self.head.ttl,
                self.head.expires_at,
            )
        if self.event:
            event = (self.event.revision, self.event.timestamp, self.event.data)
        fields = {
            "key": (key.app_name, key.user_id, key.session_id),
            "head": head,
            "state": (dict(state.app), dict(state.user), dict(state.session)),
            "event": event,
        }
        return json.dumps(fields, default=lambda data: data.decode("latin-1")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Change":
        """Return the change of a line from `to_line`."""
        fields = json.loads(line)
        key, head, event = SessionKey(*fields["key"]), None, None
        if fields["head"]:
            incarnation, revision, updated_at, ttl, expires_at = fields["head"]
            head = Head(key, Position(incarnation, revision), updated_at, ttl, expires_at)
        if fields["event"]:
            revision, timestamp, data = fields["event"]
            event = StoredEvent(revision, timestamp, data.encode("latin-1"))
        app, user, session = (
            {name: value.encode("latin-1") for name, value in scope.items()}
            for scope in fields["state"]
        )
        return cls(key, head, ScopedState(app, user, session), event)


@dataclass(frozen=True, slots=True)
class News:
    """What has been written since this process last held the lock."""

    changes: Sequence[Change] = ()
    from_the_start: bool = False
    """The journal is another one than before: these changes are all there are."""


class Journal:
    """A journal in a file, or nowhere if there is no path."""

    def __init__(self, path: Path | None, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._file: BinaryIO | None = None
        self._title = b""
        self._read_to = 0
        self._length = self._length_when_new = 0

    @property
    def grown(self) -> bool:
        """Whether it has so many lines that it should be rewritten."""
        return self._length > 2 * self._length_when_new + GROWTH

    @property
    def location(self) -> str:
        """The absolute path of the file."""
        return str(self._path.absolute()) if self._path else "the memory of this process"

    @property
    def exists(self) -> bool:
        """Whether there is a journal. One in memory always is."""
        return self._path is None or os.path.exists(self._path)

    @contextmanager
    def locked(self) -> Iterator[News]:
        """Lock the journal, and return what other processes have written."""
        if self._path is None:
            yield News()
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(f"{self._path}.lock", "ab", opener=open_privately) as lock:
                self._wait_for(lock)
                if not self._path.exists() or not self._path.stat().st_size:
                    self.rewrite(())
                with self._path.open("r+b", buffering=0) as self._file:
                    yield self._news(self._file)
        except OSError as error:
            if isinstance(error, StoreUnavailable):
                raise
            raise StoreUnavailable(
                f"The journal of your own store, {self.location}, cannot be used:"
                f" {error.strerror or error}; check the path, permissions and the disk."
            ) from error

    def write(self, change: Change) -> None:
        """Add a change and wait until it is on disk."""
        line = change.to_line()
        if self._file:
            self._file.truncate(self._read_to)
            self._file.seek(self._read_to)
            if self._file.write(line) < len(line):
                raise OSError("the disk is full")
            os.fsync(self._file)
            self._read_to += len(line)
        self._length += 1

    def rewrite(self, changes: Iterable[Change]) -> None:
        """Replace the journal. After that, nothing may be written until it is locked again."""
        lines = [change.to_line() for change in changes]
        self._length = self._length_when_new = len(lines)
        if self._path is None:
            return
        title = {"format": FORMAT, "id": token_hex(8), "lines": len(lines)}
        new = Path(f"{self._path}.new")
        with open(new, "wb", opener=open_privately) as file:
            file.writelines([json.dumps(title).encode() + b"\n", *lines])
            file.flush()
            os.fsync(file)
        if self._file:
            self._file.close()
        new.replace(self._path)

    def _news(self, file: BinaryIO) -> News:
        title = file.readline()
        from_the_start = title != self._title
        if from_the_start:
            self._length_when_new = self._check(title)
            self._length, self._read_to = 0, len(title)
        file.seek(self._read_to)
        whole, newline, _ = file.read().rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        try:
            changes = [Change.from_line(line) for line in lines]
        except (ValueError, TypeError, LookupError, AttributeError):
            self._title = b""
            raise StoreUnavailable(
                f"The journal of your own store, {self.location}, is damaged: restore it from a"
                " copy, or name another file."
            ) from None
        self._title = title
        self._read_to += len(whole) + len(newline)
        self._length += len(lines)
        return News(changes, from_the_start)

    def _check(self, title: bytes) -> int:
        """Return the initial number of lines of the journal.

        Raises:
            ConfigurationError: it is not a journal of this version.
        """
        try:
            fields = json.loads(title)
            found, lines = str(fields["format"]), int(fields["lines"])
        except (ValueError, TypeError, LookupError):
            raise ConfigurationError(
                f"{self.location} is not a journal of sessions: name another file."
            ) from None
        if found != FORMAT:
            raise ConfigurationError(
                f"{self.location} was written by another version of this program ({found!r}, this"
                f" one knows {FORMAT!r}): use that one, or name another file."
            )
        return lines

    def _wait_for(self, lock: BinaryIO) -> None:
        deadline = time.monotonic() + self._timeout
        while not try_to_lock(lock):
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"The journal of your own store, {self.location}, has been held by another"
                    f" process for more than {self._timeout:g} seconds: raise lock_timeout, or look"
                    " for one that hangs."
                )
            time.sleep(0.001)


def open_privately(path: str, flags: int) -> int:
    """Open a file that only its owner can read, if it has to be created."""
    return os.open(path, flags, 0o600)


if sys.platform == "win32":
    import msvcrt

    def try_to_lock(file: BinaryIO) -> bool:
        """Lock the file until it is closed. Return False if another process has the lock."""
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def try_to_lock(file: BinaryIO) -> bool:
        """Lock the file until it is closed. Return False if another process has the lock."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
