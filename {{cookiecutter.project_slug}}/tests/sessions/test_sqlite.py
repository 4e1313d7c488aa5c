"""What is special about SQLite: its file, durability, several processes and errors."""

import gc
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.sessions.sqlite_session_service import SqliteSessionService

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.commands.cli import sessions
from {{ cookiecutter.__package }}.sessions.commands.doctor import doctor
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.environment import PROJECT
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    SessionStoreError,
    StoreUnavailable,
)

from .support import APP, MARK, USER, create, event, exists, get, plant_and_erase, texts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a folder, neither of which exists yet."""
    return tmp_path / "new" / "sessions.db"


def uri_of(file: Path) -> str:
    """Return the session URI of a file."""
    return f"{SCHEME}:///{file.as_posix()}"


async def refusal(uri: str) -> str:
    """Return the error of a check of the URI."""
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
    async def test_file_and_folder_are_created_on_first_use(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:
            assert not file.exists()
            await create(service)
            assert file.exists()

    async def test_closed_service_leaves_one_file(self, file: Path) -> None:
        """The last connection checkpoints the write-ahead log, so the file can be copied."""
        async with create_session_service(uri_of(file)) as service:
            await create(service)
            assert await exists(service)
        assert list(file.parent.iterdir()) == [file]
        assert file.read_bytes()[68:72] == b"ADKS", "the application id must never change"

    def test_relative_path_is_relative_to_the_project(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A program finds the same sessions from any working directory."""
        monkeypatch.chdir(tmp_path)
        service = create_session_service(f"{SCHEME}:///below/sessions.db")
        assert service.store.location == str(PROJECT / "below" / "sessions.db")

    @pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
    async def test_only_the_owner_can_read_the_files(self, file: Path) -> None:
        before = os.umask(0o022)
        try:
            async with create_session_service(uri_of(file)) as service:
                await create(service)
                modes = {path.name: path.stat().st_mode & 0o777 for path in file.parent.iterdir()}
        finally:
            os.umask(before)
        assert set(modes) == {"sessions.db", "sessions.db-wal", "sessions.db-shm"}
        assert set(modes.values()) == {0o600}
        assert file.parent.stat().st_mode & 0o777 == 0o700

    def test_reading_commands_do_not_create_the_file(self, file: Path) -> None:
        for command in (["list"], ["show", "x"], ["export", "--all"], ["delete", "--yes", "x"]):
            result = CliRunner().invoke(sessions, [*command, "--uri", uri_of(file)])
            assert result.exit_code == 1
            assert f"Error: SQLite file {file} does not exist" in result.stderr
        assert "does not exist" in CliRunner().invoke(doctor, ["--uri", uri_of(file)]).stdout
        assert not file.parent.exists()

    def test_name_that_is_too_long_is_one_sentence(self, file: Path) -> None:
        long = file.with_name("x" * 300)
        for command in (["list"], ["init"]):
            result = CliRunner().invoke(sessions, [*command, "--uri", uri_of(long)])
            assert result.exit_code == 1
            assert result.stderr.startswith(f"Error: SQLite file {long}")
            assert len(result.stderr.splitlines()) == 1

    @pytest.mark.parametrize("replaced", [False, True])
    async def test_deleted_or_replaced_file_is_reported(self, file: Path, replaced: bool) -> None:
        """No write to a file that is gone is acknowledged."""
        async with create_session_service(uri_of(file)) as service:
            session = await create(service)
            await service.append_event(session, event("kept"))
            moved = file.with_name("moved.db")
            file.rename(moved)
            if replaced:
                file.touch()
            with pytest.raises(StoreUnavailable, match="deleted or replaced while it was in use"):
                await service.append_event(session, event("lost"))
            with pytest.raises(SessionNotFoundError):
                await service.append_event(session, event("lost"))
            assert await create(service)
        gc.collect()  # from Python 3.13 on, this complains about connections that were not closed

    async def test_database_of_another_program_is_refused_and_unchanged(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "other.db"
        with closing(sqlite3.connect(file)) as database:
            database.execute("CREATE TABLE mine (x)")
        before = file.read_bytes()
        assert "a database of another program" in await refusal(uri_of(file))
        assert file.read_bytes() == before
        assert list(tmp_path.iterdir()) == [file]

    async def test_database_of_adk_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "adk.db"
        await SqliteSessionService(str(file)).create_session(app_name=APP, user_id=USER)
        before = file.read_bytes()
        assert "ADK's own session service" in await refusal(uri_of(file))
        assert file.read_bytes() == before

    async def test_file_of_a_newer_version_is_refused(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:
            await create(service)
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA user_version = 99")
        assert "newer version of this program (schema 99" in await refusal(uri_of(file))

    async def test_other_file_is_refused_and_unchanged(self, tmp_path: Path) -> None:
        file = tmp_path / "letter.txt"
        file.write_text("Dear Ada, this is not a database at all.")
        assert "is not a SQLite file" in await refusal(uri_of(file))
        assert file.read_text().startswith("Dear Ada")

    async def test_damaged_file_is_reported_as_damaged(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:
            for number in range(20):
                await create(service, str(number))
        whole = file.read_bytes()
        file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
        async with create_session_service(uri_of(file)) as service:
            with pytest.raises(StoreUnavailable, match="restore it from a backup"):
                await get(service, "1")

    async def test_folder_is_refused(self, tmp_path: Path) -> None:
        assert str(tmp_path) in await refusal(uri_of(tmp_path))

    async def test_uncreatable_path_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        said = await refusal(uri_of(tmp_path / "file" / "sessions.db"))
        assert "cannot be used" in said

    @pytest.mark.parametrize("rest", ["host/file.db", "user:secret@/file.db", "", "/", "//", "/a/"])
    def test_uri_without_a_file_is_refused(self, rest: str) -> None:
        with pytest.raises(ConfigurationError, match=r"relative\.db"):
            create_session_service(f"{SCHEME}://{rest}")

    def test_in_memory_database_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="memory://"):
            create_session_service(f"{SCHEME}:///:memory:")

    @pytest.mark.parametrize("option", ["synchronous=OFF", "busy_timeout=0", "busy_timeout=x"])
    def test_invalid_option_is_refused(self, file: Path, option: str) -> None:
        with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
            create_session_service(f"{uri_of(file)}?{option}")


class TestDurability:
    async def test_commits_are_durable_by_default(self, file: Path) -> None:
        for option, level in (("", 2), ("?synchronous=NORMAL", 1), ("?synchronous=full", 2)):
            async with create_session_service(f"{uri_of(file)}{option}") as service:
                found = await service.store.innermost._database.write(  # type: ignore[attr-defined]
                    lambda db: [
                        db.execute(f"PRAGMA {name}").fetchone()[0]
                        for name in ("synchronous", "journal_mode", "foreign_keys")
                    ]
                )
            assert found == [level, "wal", 1]


class TestSeveralProcesses:
    async def test_locked_database_is_reported_after_busy_timeout(self, file: Path) -> None:
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
    async def test_read_only_file_is_reported(self, file: Path) -> None:
        async with create_session_service(uri_of(file)) as service:
            await create(service)
        file.chmod(0o400)
        file.parent.chmod(0o500)
        assert "permissions" in await refusal(uri_of(file))


async def test_erased_data_is_in_no_file(file: Path) -> None:
    async with (
        create_session_service(uri_of(file)) as service,
        create_session_service(uri_of(file)) as reader,
    ):
        await reader.list_sessions(app_name=APP)
        await plant_and_erase(service)
        found = {each.name: MARK.encode() in each.read_bytes() for each in file.parent.iterdir()}
    assert found == {"sessions.db": False, "sessions.db-wal": False, "sessions.db-shm": False}
