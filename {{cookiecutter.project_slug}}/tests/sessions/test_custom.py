"""The journal of the included store. Remove this file together with that store."""

# ruff: noqa: ASYNC230  # the files are small, and no other task is waiting

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from {{ cookiecutter.__package }}.sessions import create_session_service, errors
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.custom import journal as custom_journal

from .support import MARK, create, event, exists, get, plant_and_erase, texts


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The path of a journal that does not exist yet."""
    return tmp_path / "sessions.jsonl"


def uri_of(journal: Path) -> str:
    return f"{SCHEME}:///{journal.as_posix()}"


async def test_without_a_file_sessions_live_in_memory() -> None:
    async with create_session_service(f"{SCHEME}://") as service:
        session = await create(service)
        await service.append_event(session, event("hi", own=1))
        assert texts(await get(service)) == ["hi"]
    async with create_session_service(f"{SCHEME}://") as service:
        assert not await exists(service)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
async def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    journal = tmp_path / "new" / "sessions.jsonl"
    before = os.umask(0o022)
    try:
        async with create_session_service(uri_of(journal)) as service:
            await create(service)
    finally:
        os.umask(before)
    assert {file.name: file.stat().st_mode & 0o777 for file in journal.parent.iterdir()} == {
        "sessions.jsonl": 0o600,
        "sessions.jsonl.lock": 0o600,
    }
    assert journal.parent.stat().st_mode & 0o777 == 0o700


async def test_partial_last_line_is_ignored(journal: Path) -> None:
    """A process that is killed while it writes leaves such a line."""
    async with create_session_service(uri_of(journal)) as service:
        await service.append_event(await create(service), event("first"))
        whole = journal.read_bytes()
        journal.write_bytes(whole + whole.splitlines()[-1][:-3])
        session = await get(service)
        assert texts(session) == ["first"]
        await service.append_event(session, event("second"))
    async with create_session_service(uri_of(journal)) as service:
        assert texts(await get(service)) == ["first", "second"]


async def test_journal_is_compacted(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction drops deleted sessions. Other processes notice the new file."""
    monkeypatch.setattr(custom_journal, "GROWTH", 20)
    async with create_session_service(uri_of(journal)) as other:
        await create(other, "kept", state={"own": 1, "user:name": "Ada", "app:motd": "hi"})
        async with create_session_service(uri_of(journal)) as service:
            for number in range(50):
                await create(service, f"{number}")
                await service.delete_session(app_name="app", user_id="user", session_id=f"{number}")
            await service.append_event(await get(service, "kept"), event("hi"))
        assert len(journal.read_bytes().splitlines()) < 50
        session = await get(other, "kept")
        assert texts(session) == ["hi"]
        assert session.state == {"own": 1, "user:name": "Ada", "app:motd": "hi"}
        assert not await exists(other, "0")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("Dear diary,\n", "is not a journal of sessions"),
        ('{"title": "Dear diary"}\n', "is not a journal of sessions"),
        ('{"format": "sessions 2", "id": "x", "lines": 0}\n', "another version"),
    ],
)
async def test_file_of_another_program_is_refused_and_unchanged(
    journal: Path, content: str, complaint: str
) -> None:
    journal.write_text(content)
    async with create_session_service(uri_of(journal)) as service:
        with pytest.raises(errors.ConfigurationError, match=complaint):
            await service.check()
        with pytest.raises(errors.ConfigurationError, match=complaint):
            await create(service)
    assert journal.read_text() == content


async def test_damaged_journal_is_not_written(journal: Path) -> None:
    async with create_session_service(uri_of(journal)) as service:
        await create(service)
    damaged = journal.read_text() + '{"key": []}\n'
    journal.write_text(damaged)
    async with create_session_service(uri_of(journal)) as service:
        with pytest.raises(errors.StoreUnavailable, match="is damaged"):
            await create(service, "other")
    assert journal.read_text() == damaged


async def test_lock_timeout_is_reported(journal: Path) -> None:
    async with create_session_service(uri_of(journal), lock_timeout=0.05) as service:
        session = await create(service)
        with Path(f"{journal}.lock").open("ab") as lock:
            assert custom_journal.try_to_lock(lock)
            with pytest.raises(errors.StoreUnavailable, match="raise lock_timeout"):
                await service.append_event(session, event("hi"))
        assert session.events == []
        await service.append_event(session, event("hi"))
        assert texts(await get(service)) == ["hi"]


async def test_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with create_session_service(uri_of(tmp_path / "file" / "sessions.jsonl")) as service:
        with pytest.raises(errors.StoreUnavailable, match="cannot be used"):
            await service.check()


FILL_THE_DISK = """
import asyncio, resource, sys
from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from tests.sessions.support import create, event, get, texts

async def main(uri):
    async with create_session_service(uri) as service:
        session = await create(service)
        await service.append_event(session, event("small"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, -1))
        try:
            await service.append_event(session, event("large" * 2000, own=1))
        except StoreUnavailable as error:
            print(error)
        print(texts(session), session.state)
        await service.append_event(session, event("small"))
        print(texts(await get(service)))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no such limit")
def test_full_disk_changes_nothing(journal: Path) -> None:
    """A limit on the file size stands in for a full disk."""
    command = [sys.executable, "-c", FILL_THE_DISK, uri_of(journal)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    error, refused, stored = ran.stdout.splitlines()
    assert "the disk is full" in error
    assert refused == "['small'] {}"
    assert stored == "['small', 'small']"


@pytest.mark.usefixtures("clear_text")
async def test_append_writes_one_line_at_any_length(journal: Path) -> None:
    async with create_session_service(uri_of(journal)) as service:
        session = await create(service)
        sizes = [journal.stat().st_size]
        for _ in range(300):
            await service.append_event(session, event("hello"))
            sizes.append(journal.stat().st_size)
    written = [after - before for before, after in pairwise(sizes)]
    assert max(written) - min(written) < 20
    lines = journal.read_text().splitlines()
    assert [bool(json.loads(line).get("event")) for line in lines] == [False] * 2 + [True] * 300


async def test_erased_data_is_in_no_file(journal: Path) -> None:
    async with create_session_service(uri_of(journal)) as service:
        await plant_and_erase(service)
    assert MARK.encode() not in b"".join(each.read_bytes() for each in journal.parent.iterdir())
