"""SQLite: statements, connections, batches and purges of the store."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.platform import time as platform_time
from google.adk.sessions.base_session_service import GetSessionConfig

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.environment import PROJECT
from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.sqlite.store import PURGE_GRACE, SQLiteStore
from {{ cookiecutter.__package }}.sessions.store import (
    Position,
    ScopedState,
    SessionKey,
)

from ..sessions.support import APP, USER, create, event, exists, get, texts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "new" / "sessions.db"


def uri_of(file: Path) -> str:
    """Return the session URI of a file."""
    return f"{SCHEME}:///{file.as_posix()}"


class TestReading:
    @pytest.mark.usefixtures("clear_text")
    async def test_read_takes_two_statements_in_one_transaction(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One reads the session and its state, one its events."""
        async with create_session_service(f"{uri_of(file)}?cache_mb=0") as service:
            session = await create(service)
            for text in ("first", "second", "third"):
                await service.append_event(session, event(text))
            store: Any = service.store.innermost
            said: list[str] = []
            connect = store._database._connect

            def traced(threads: Any) -> sqlite3.Connection:
                connection: sqlite3.Connection = connect(threads)
                connection.set_trace_callback(said.append)
                return connection

            monkeypatch.setattr(store._database, "_connect", traced)
            for count, statements in ((None, 4), (2, 4), (0, 3)):
                config = GetSessionConfig(num_recent_events=count)
                said.clear()
                await get(service, config=config)
                assert len(said) == statements, said

    async def test_connections_are_reused(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:
            store: Any = service.store.innermost
            session = await create(service)
            for _ in range(10):
                await service.append_event(session, event())
                await get(service)
            assert len(store._database._current.opened) == 2, "one that writes, one that reads"

    async def test_failed_write_leaves_its_connection_usable(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:

            def break_off(db: sqlite3.Connection) -> None:
                raise KeyError

            store: Any = service.store.innermost
            with pytest.raises(KeyError):
                await store._database.write(break_off)
            await create(service)
            assert await exists(service)

    async def test_failed_read_leaves_its_connection_usable(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:
            await create(service)

            def break_off(db: sqlite3.Connection) -> None:
                db.execute("BEGIN")
                raise KeyError

            store: Any = service.store.innermost
            for _ in range(8):
                with pytest.raises(KeyError):
                    await store._database.read(break_off)
            for _ in range(8):
                assert (await service.list_sessions(app_name=APP)).sessions

    @pytest.mark.parametrize(
        ("code", "sentence"),
        [
            ("database is locked", "another process has been writing for more than 3 seconds"),
            ("database schema is busy", "another process has been writing"),
            ("database or disk is full", "the disk is full; make room"),
            ("attempt to write a readonly database", "check the permissions"),
            ("unable to open database file", "check the permissions"),
            ("disk I/O error", "disk I/O error"),
        ],
    )
    def test_sqlite_errors_become_sentences(self, file: Path, code: str, sentence: str) -> None:
        """A test cannot fill the disk, and root may write everywhere."""
        store = SQLiteStore(file, busy_timeout=3.0)
        with pytest.raises(StoreUnavailable, match=sentence), store._database._translated():
            raise sqlite3.OperationalError(code)


async def test_refused_write_affects_only_its_caller(file: Path) -> None:
    """Writes are committed in batches. If SQLite refuses one of them, only its caller fails."""
    async with create_session_service(uri_of(file)) as service:
        sessions = [await create(service, str(number)) for number in range(8)]

        async def append(number: int) -> None:
            await service.store.append(
                SessionKey(APP, USER, str(number)),
                expected=Position(sessions[number].position.incarnation, 0),  # type: ignore[attr-defined]
                event=b"{}",
                timestamp=float("nan") if number == 3 else 1.0,
                state=ScopedState(),
                now=time.time(),
            )

        results = await asyncio.gather(*map(append, range(8)), return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 3 + [ValueError] + [
            type(None)
        ] * 4
        assert "NOT NULL" in str(results[3])


def use_in_child(service: PersistentSessionService) -> None:
    """Append to the session in a forked child."""

    async def append() -> None:
        await service.append_event(await get(service), event("child"))

    asyncio.run(append())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_service_works_in_a_forked_child(file: Path) -> None:
    service = create_session_service(uri_of(file))

    async def before() -> None:
        await service.append_event(await create(service), event("parent"))

    asyncio.run(before())
    child = get_context("fork").Process(target=use_in_child, args=(service,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert asyncio.run(read_texts(service)) == ["parent", "child"]


async def read_texts(service: PersistentSessionService) -> list[str | None]:
    """Return the texts of the session, and close the service."""
    async with service:
        return texts(await get(service))


async def test_repeated_creation_creates_one_session(file: Path) -> None:
    async with create_session_service(uri_of(file)) as service:
        key = SessionKey(APP, USER, "s")
        first, second = [
            await service.store.create(key, incarnation="m", state=ScopedState(), now=1.0, ttl=0)
            for _ in range(2)
        ]
        assert first == second


async def test_every_statement_agrees_on_the_moment_of_expiry(file: Path) -> None:
    async with create_session_service(uri_of(file), ttl=60) as service:
        platform_time.set_time_provider(partial(float, 1_000))
        try:
            session = await create(service)
            platform_time.set_time_provider(partial(float, 1_060))
            assert not await exists(service)
            assert (await service.list_sessions(app_name=APP)).sessions == []
            with pytest.raises(SessionNotFoundError):
                await service.append_event(session, event())
        finally:
            platform_time.reset_time_provider()


async def test_active_session_is_never_purged(file: Path) -> None:
    """The time of its removal is updated seldom, but often enough."""
    async with create_session_service(uri_of(file), ttl=60) as service:
        try:
            for turn in range(20):
                platform_time.set_time_provider(partial(float, 1_000 + 50 * turn))
                service.store.innermost._next_purge = 0.0  # type: ignore[attr-defined]
                session = await get(service) if turn else await create(service)
                await service.append_event(session, event(str(turn)))
            assert texts(await get(service)) == [str(turn) for turn in range(20)]
        finally:
            platform_time.reset_time_provider()


@pytest.mark.usefixtures("clear_text")
@pytest.mark.parametrize("by", ["creating", "appending"])
async def test_expired_sessions_are_purged_by_the_next_write(file: Path, by: str) -> None:
    """They are purged once they have expired by a slow clock, too."""
    async with create_session_service(uri_of(file), ttl=60) as service:
        lasting = await service.create_session(app_name=APP, user_id=USER, ttl=0)
        for number in range(30):
            session = await create(service, str(number), state={"own": 1, "user:kept": 1})
            await service.append_event(session, event())
        for age, left in ((PURGE_GRACE - 30, 30), (PURGE_GRACE + 30, 0)):
            with closing(sqlite3.connect(file, isolation_level=None)) as database:
                database.execute(
                    "UPDATE sessions SET purge_at = ? WHERE ttl > 0", (time.time() - age,)
                )
            service.store.innermost._next_purge = 0.0  # type: ignore[attr-defined]
            if by == "creating":
                await service.create_session(app_name=APP, user_id="other", ttl=0)
            else:
                await service.append_event(lasting, event())
            with closing(sqlite3.connect(file)) as database:
                counts = {
                    query: database.execute(f"SELECT count(*) FROM {query}").fetchone()[0]
                    for query in ("sessions WHERE ttl > 0", "session_state", "user_state")
                }
                events = database.execute("SELECT count(*) FROM events").fetchone()[0]
                (*_, plan) = database.execute(
                    "EXPLAIN QUERY PLAN SELECT id FROM sessions WHERE purge_at <= 1"
                ).fetchone()
            expected = {"sessions WHERE ttl > 0": left, "session_state": left, "user_state": 1}
            assert counts == expected
            assert events == left + (by == "appending") * (1 if left else 2)
            assert "sessions_to_purge" in plan


async def test_fast_clock_purges_no_live_session(file: Path) -> None:
    async with create_session_service(uri_of(file), ttl=60) as service:
        await create(service)
        platform_time.set_time_provider(lambda: time.time() + 6_000)
        try:
            service.store.innermost._next_purge = 0.0  # type: ignore[attr-defined]
            await create(service, "other")
        finally:
            platform_time.reset_time_provider()
        assert await exists(service)


def test_concurrent_first_use_creates_one_schema(file: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from {{ cookiecutter.__package }}.sessions import create_session_service\n"
        "from tests.sessions.support import create, event\n"
        "async def main(uri, name):\n"
        "    async with create_session_service(uri) as service:\n"
        "        session = await create(service, name)\n"
        "        for number in range(50):\n"
        "            await service.append_event(session, event(app__last=number))\n"
        "asyncio.run(main(*sys.argv[1:]))\n"
    )
    commands = [[sys.executable, "-c", program, uri_of(file), str(n)] for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        results = list(
            pool.map(
                lambda command: subprocess.run(
                    command, cwd=PROJECT, capture_output=True, text=True, check=False
                ),
                commands,
            )
        )
    assert [result.stderr for result in results if result.returncode] == []
    with closing(sqlite3.connect(file)) as database:
        revisions = database.execute("SELECT revision FROM sessions").fetchall()
        events = database.execute("SELECT count(*) FROM events").fetchone()
    assert revisions == [(50,)] * 3
    assert events == (150,)


async def test_erasure_that_leaves_data_in_the_log_is_reported(file: Path) -> None:
    async with create_session_service(f"{uri_of(file)}?busy_timeout=0.1") as service:
        await create(service)
        with closing(sqlite3.connect(file, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sessions").fetchone()
            with pytest.raises(StoreUnavailable, match="is still in sessions"):
                await service.erase(app_name=APP, user_id=USER)
        await service.erase(app_name=APP, user_id=USER)
        assert not await exists(service)
