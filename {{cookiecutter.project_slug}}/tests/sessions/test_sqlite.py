"""What is particular to SQLite: whose file it is, several processes, and errors."""

import os
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.platform import time as platform_time
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.sqlite_session_service import SqliteSessionService

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.environment import PROJECT
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    SessionStoreError,
    StoreUnavailable,
)
from {{ cookiecutter.__package }}.sessions.sqlite.store import PURGE_GRACE, SQLiteStore
from {{ cookiecutter.__package }}.sessions.store import ScopedState, SessionKey

from .support import APP, USER, create, event, exists, get, texts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that is not there yet, in a folder that is not there yet."""
    return tmp_path / "new" / "sessions.db"


def uri_of(file: Path) -> str:
    """Return the session URI of a file."""
    return f"{SCHEME}:///{file.as_posix()}"


async def refusal(uri: str) -> str:
    """Return the sentence that a check of the URI ends with."""
    sentence = ""
    try:
        async with create_session_service(uri) as service:
            await service.check()
    except SessionStoreError as error:
        sentence = str(error)
    assert sentence
    assert sentence.count("\n") == 0
    return sentence


class TestFiles:
    async def test_file_and_folder_are_made_on_first_use(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:
            assert not file.exists()
            await create(service)
            assert file.exists()

    async def test_a_closed_service_leaves_one_file(self, file: Path) -> None:
        """The last connection that is closed tidies up; what is left could be copied as it is."""
        async with create_session_service(uri_of(file)) as service:
            await create(service)
            assert await exists(service)
        assert list(file.parent.iterdir()) == [file]
        assert file.read_bytes()[68:72] == b"ADKS", "files of today are known tomorrow"

    async def test_a_relative_path_starts_where_the_program_was_started(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        async with create_session_service(f"{SCHEME}:///below/sessions.db") as service:
            assert service.store.location == str(tmp_path / "below" / "sessions.db")
            await create(service)
        assert (tmp_path / "below" / "sessions.db").exists()
        assert create_session_service(f"{SCHEME}:///x").store.location == str(tmp_path / "x")

    async def test_a_database_of_another_program_is_refused_and_left_alone(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "other.db"
        with closing(sqlite3.connect(file)) as database:
            database.execute("CREATE TABLE mine (x)")
        before = file.read_bytes()
        assert "a database of another program" in await refusal(uri_of(file))
        assert file.read_bytes() == before
        assert list(tmp_path.iterdir()) == [file]

    async def test_a_database_of_adks_own_service_is_refused_by_name(self, tmp_path: Path) -> None:
        file = tmp_path / "adk.db"
        await SqliteSessionService(str(file)).create_session(app_name=APP, user_id=USER)
        before = file.read_bytes()
        assert "ADK's own session service" in await refusal(uri_of(file))
        assert file.read_bytes() == before

    async def test_a_file_of_a_newer_version_is_refused_by_name(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:
            await create(service)
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA user_version = 99")
        assert "newer version of this program (schema 99" in await refusal(uri_of(file))

    async def test_a_file_that_is_no_database_is_refused_and_left_alone(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "letter.txt"
        file.write_text("Dear Ada, this is not a database at all.")
        assert "is not a SQLite file" in await refusal(uri_of(file))
        assert file.read_text().startswith("Dear Ada")

    async def test_a_damaged_file_is_called_damaged(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:
            for number in range(20):
                await create(service, str(number))
        whole = file.read_bytes()
        file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
        async with create_session_service(uri_of(file)) as service:
            with pytest.raises(StoreUnavailable, match="restore it from a backup"):
                await get(service, "1")

    async def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        assert str(tmp_path) in await refusal(uri_of(tmp_path))

    async def test_a_place_where_nothing_can_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        said = await refusal(uri_of(tmp_path / "file" / "sessions.db"))
        assert "cannot be used" in said

    @pytest.mark.parametrize("rest", ["host/file.db", "user:secret@/file.db", "", "/", "//", "/a/"])
    def test_uris_that_name_no_file_are_refused_at_once(self, rest: str) -> None:
        with pytest.raises(ConfigurationError, match=r"relative\.db"):
            create_session_service(f"{SCHEME}://{rest}")

    @pytest.mark.parametrize("option", ["synchronous=OFF", "busy_timeout=0", "busy_timeout=x"])
    def test_bad_options_are_refused_at_once(self, file: Path, option: str) -> None:
        with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
            create_session_service(f"{uri_of(file)}?{option}")


class TestDurability:
    async def test_a_commit_is_on_disk_unless_asked_otherwise(self, file: Path) -> None:
        for option, level in (("", 2), ("?synchronous=NORMAL", 1), ("?synchronous=full", 2)):
            async with create_session_service(f"{uri_of(file)}{option}") as service:
                found = await service.store._write(  # type: ignore[attr-defined]
                    lambda db: [
                        db.execute(f"PRAGMA {name}").fetchone()[0]
                        for name in ("synchronous", "journal_mode", "foreign_keys")
                    ]
                )
            assert found == [level, "wal", 1]


class TestReading:
    async def test_a_read_takes_two_statements(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One for the session and its state, one for its events; a transaction would be two more."""
        async with create_session_service(f"{uri_of(file)}?cache_mb=0") as service:
            session = await create(service)
            for text in ("first", "second", "third"):
                await service.append_event(session, event(text))
            store: Any = service.store
            said: list[str] = []
            connect = store._connect

            def traced() -> sqlite3.Connection:
                connection: sqlite3.Connection = connect()
                connection.set_trace_callback(said.append)
                return connection

            monkeypatch.setattr(store, "_connect", traced)
            for count, statements in ((None, 2), (2, 2), (0, 1)):
                config = GetSessionConfig(num_recent_events=count)
                said.clear()
                await get(service, config=config)
                assert len(said) == statements, said

    async def test_a_connection_is_kept(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:
            store: Any = service.store
            session = await create(service)
            for _ in range(10):
                await service.append_event(session, event())
                await get(service)
            assert len(store._threads.opened) == 2, "one that writes, one that reads"

    async def test_a_write_that_breaks_off_leaves_its_connection_usable(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:

            def break_off(db: sqlite3.Connection) -> None:
                raise KeyError

            store: Any = service.store
            with pytest.raises(KeyError):
                await store._write(break_off)
            await create(service)
            assert await exists(service)

    async def test_a_read_that_breaks_off_leaves_its_connection_usable(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:
            await create(service)

            def break_off(db: sqlite3.Connection) -> None:
                db.execute("BEGIN")
                raise KeyError

            store: Any = service.store
            for _ in range(8):
                with pytest.raises(KeyError):
                    await store._read(break_off)
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
    def test_what_sqlite_says_is_said_in_a_sentence(
        self, file: Path, code: str, sentence: str
    ) -> None:
        """A full disk cannot be had in a test, and the superuser may write everywhere."""
        store = SQLiteStore(file, busy_timeout=3.0)
        with pytest.raises(StoreUnavailable, match=sentence), store._translated():
            raise sqlite3.OperationalError(code)


class TestSeveralProcesses:
    def test_many_that_start_together_make_one_schema(self, file: Path) -> None:
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

    async def test_a_writer_that_never_ends_is_named_after_the_timeout(self, file: Path) -> None:
        async with create_session_service(f"{uri_of(file)}?busy_timeout=0.1") as service:
            session = await create(service)
            with closing(sqlite3.connect(file, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreUnavailable, match="another process has been writing"):
                    await service.append_event(session, event())
                assert await exists(service), "readers do not wait for writers"
                other.execute("ROLLBACK")
            await service.append_event(session, event("after"))
            assert texts(await get(service)) == ["after"]

    @pytest.mark.skipif(
        os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
        reason="the superuser may write everywhere",
    )
    async def test_a_file_that_cannot_be_written_is_named(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:
            await create(service)
        file.chmod(0o400)
        file.parent.chmod(0o500)
        assert "permissions" in await refusal(uri_of(file))


async def test_a_creation_that_is_delivered_twice_is_done_once(file: Path) -> None:
    async with create_session_service(uri_of(file)) as service:
        key = SessionKey(APP, USER, "s")
        first, second = [
            await service.store.create(key, incarnation="m", state=ScopedState(), now=1.0, ttl=0)
            for _ in range(2)
        ]
        assert first == second


async def test_at_the_moment_of_its_expiry_a_session_is_over_for_every_call(file: Path) -> None:
    """Each statement has a comparison of its own, and all must agree."""
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


async def test_a_session_that_is_used_is_never_removed_from_the_file(file: Path) -> None:
    """The time of its removal is moved on seldom, but it is moved on."""
    async with create_session_service(uri_of(file), ttl=60) as service:
        try:
            for turn in range(20):
                platform_time.set_time_provider(partial(float, 1_000 + 50 * turn))
                service.store._next_purge = 0.0  # type: ignore[attr-defined]
                session = await get(service) if turn else await create(service)
                await service.append_event(session, event(str(turn)))
            assert texts(await get(service)) == [str(turn) for turn in range(20)]
        finally:
            platform_time.reset_time_provider()


@pytest.mark.parametrize("by", ["creating", "appending"])
async def test_what_expired_is_removed_from_the_file(file: Path, by: str) -> None:
    """By whatever is written next, but not before the slowest clock must agree that it has expired."""
    async with create_session_service(uri_of(file), ttl=60) as service:
        lasting = await service.create_session(app_name=APP, user_id=USER, ttl=0)
        for number in range(30):
            session = await create(service, str(number), state={"own": 1, "user:kept": 1})
            await service.append_event(session, event())
        due = time.time() + 60 + 60 + PURGE_GRACE  # for as long again as it lived
        for later, left in ((due - 30, 30), (due + 30, 0)):
            platform_time.set_time_provider(partial(float, later))
            try:
                service.store._next_purge = 0.0  # type: ignore[attr-defined]
                if by == "creating":
                    await service.create_session(app_name=APP, user_id="other", ttl=0)
                else:
                    await service.append_event(lasting, event())
            finally:
                platform_time.reset_time_provider()
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
