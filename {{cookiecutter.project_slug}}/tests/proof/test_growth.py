"""An append writes as much at any length of a session, and expired sessions leave the store."""

import asyncio
import sys
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from urllib.parse import unquote, urlsplit

import pytest

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.store import (
    NotFound,
    Position,
    ScopedState,
    SessionKey,
    SessionStore,
)

from ..servers import backend
from .planted import NeverRemoves, Planted, RewritesLog

Store = SessionStore | Planted

HOUR = 3_600.0
SESSIONS, EVENTS, EVENT_BYTES = 8, 12, 1_000
"""Sessions of each hour, events of each session, and their size."""


def size_of_files(uri: str, scheme: str) -> int:
    """Return the bytes that the files of a namespace take."""
    folder = Path(unquote(urlsplit(uri).path[1:])).parent
    return sum(file.stat().st_size for file in folder.iterdir())


def written_here(uri: str, scheme: str) -> int:
    """Return the bytes that this process has written so far. Linux counts them."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["wchar"])


size = getattr(backend, "size", size_of_files)
"""Returns the bytes that a namespace takes. A server has a function of its own for this."""
written = getattr(backend, "written", written_here)
"""Returns the bytes that the store or its server has written so far. Likewise."""


async def append(store: Store, key: SessionKey, after: Position, now: float) -> Position:
    """Append an event that cannot be compressed much."""
    event, state = token_hex(EVENT_BYTES // 2).encode(), ScopedState(session={"own": b"1"})
    head = await store.append(key, expected=after, event=event, timestamp=now, state=state, now=now)
    return head.position


async def check_appends(store: Store, uri: str) -> None:
    """Raise AssertionError if an append to a long session writes more than one to a short session."""
    key, now, costs = SessionKey("app", "user", "long"), time.time(), []
    record = await store.create(key, incarnation="1", state=ScopedState(), now=now, ttl=0)
    position = record.head.position
    for count in (20, 260, 20):
        before = written(uri, SCHEME)
        for _ in range(count):
            position = await append(store, key, position, now)
        costs.append((written(uri, SCHEME) - before) / count)
    first, _, last = costs
    assert EVENT_BYTES < last < 3 * first


async def fill(store: Store, key: SessionKey, now: float) -> int:
    """Create a session that expires after a second, and return the bytes of its events."""
    total = 0
    with suppress(NotFound):  # the database may count the second by its own clock
        record = await store.create(key, incarnation="1", state=ScopedState(), now=now, ttl=1)
        position = record.head.position
        for _ in range(EVENTS):
            position = await append(store, key, position, now)
            total += EVENT_BYTES
    return total


async def check_expiry(store: Store, uri: str, patience: float) -> None:
    """Write hour after hour until less than half of it is stored, because the rest has expired.

    Raises:
        AssertionError: that has not happened within some seconds.
    """
    start, end, total = time.time() - 1_000 * HOUR, time.monotonic() + patience, 0
    for hour in range(1_000):
        keys = [SessionKey("app", f"{number}", f"{hour}") for number in range(SESSIONS)]
        filled = (fill(store, key, start + hour * HOUR) for key in keys)
        total += sum(await asyncio.gather(*filled))
        await store.close()  # writes what is pending
        if size(uri, SCHEME) < total / 2:
            return
        assert time.monotonic() < end
    raise AssertionError


@pytest.fixture
def store(uri: str) -> SessionStore:
    """The store without what wraps it."""
    return create_session_service(uri).store.innermost


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts what a process writes")
class TestAppends:
    async def test_append_to_a_long_session_writes_as_much_as_to_a_short_one(
        self, store: SessionStore, uri: str
    ) -> None:
        await check_appends(store, uri)
        await store.close()

    async def test_rewritten_log_is_found(self, store: SessionStore, uri: str) -> None:
        """A check proves something only if it can fail."""
        with pytest.raises(AssertionError):
            await check_appends(RewritesLog(store), uri)
        await store.close()


class TestExpiry:
    async def test_expired_sessions_leave_the_store(self, store: SessionStore, uri: str) -> None:
        await check_expiry(store, uri, patience=120)

    async def test_store_that_removes_nothing_is_found(self, store: SessionStore, uri: str) -> None:
        with pytest.raises(AssertionError):
            await check_expiry(NeverRemoves(store), uri, patience=3)
