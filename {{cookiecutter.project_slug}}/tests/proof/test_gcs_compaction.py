"""Cloud Storage: compaction of old events into segments neither loses nor duplicates events."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from google.adk.errors import StaleSessionError

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from {{ cookiecutter.__package }}.sessions.gcs import compaction
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.store import Stale

from ..servers import gcs as server
from ..servers.gcs_faults import proxied
from ..servers.proxy import Fault
from ..sessions.support import create, event, get, texts, until
from .gcs_support import fill, folder_of, new_log, numbers, store_of


def segments(uri: str) -> list[str]:
    """Return the names of all segments."""
    return [name for name in server.objects(uri, SCHEME) if name.rpartition("/")[2].count("-") == 2]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compact after ten events."""
    monkeypatch.setattr(compaction, "COMPACT_AT", 10)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete compacted events at the next compaction."""
    monkeypatch.setattr(compaction, "GRACE", 0.0)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("grace", [compaction.GRACE, 0.0])
async def test_filters_reach_across_segments(
    service: PersistentSessionService, monkeypatch: pytest.MonkeyPatch, grace: float
) -> None:
    monkeypatch.setattr(compaction, "GRACE", grace)
    await new_log(service, 75)
    for _ in ("first", "again"):
        assert await numbers(service) == list(range(1, 76))
        for count in (0, 1, 5, 6, 30, 74, 75, 99):
            expected = list(range(1, 76))[75 - min(count, 75) :]
            assert await numbers(service, limit=count) == expected
            assert await numbers(service, since=75.5 - count) == expected
            assert await numbers(service, limit=40, since=75.5 - count) == expected[-40:]
            assert await numbers(service, after_revision=20, limit=count) == expected[-55:]
        await service.store.close()


@pytest.mark.usefixtures("often", "at_once")
async def test_compacted_events_are_deleted_and_segments_are_few(
    service: PersistentSessionService, uri: str
) -> None:
    await new_log(service, 640)
    assert len(server.objects(uri, SCHEME)) < 40
    assert await numbers(service) == list(range(1, 641))


@pytest.mark.usefixtures("often", "at_once")
async def test_late_writer_is_refused_after_compaction(
    service: PersistentSessionService, uri: str
) -> None:
    async with create_session_service(uri) as other:
        await new_log(service, 5)
        assert await numbers(other) == [1, 2, 3, 4, 5]
        await fill(service, 6, 45)
        before = server.objects(uri, SCHEME)
        assert not any(name.endswith("/0000000006") for name in before)
        with pytest.raises(Stale):
            await fill(other, 6, 6, said=b"something else")
    assert server.objects(uri, SCHEME) == before
    assert await numbers(service) == list(range(1, 46))


async def test_concurrent_compactions_are_harmless(
    service: PersistentSessionService, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await new_log(service, 30)
    monkeypatch.setattr(compaction, "COMPACT_AT", 10)
    async with create_session_service(uri) as other:
        stores = [store_of(each) for each in (service, other) * 3]
        folder = folder_of(service)
        await asyncio.gather(
            *(
                compaction._compact(store._bucket, store._log, store._shared, folder)
                for store in stores
            )
        )
        assert await numbers(other) == await numbers(service) == list(range(1, 31))
        await fill(service, 31, 31)
        assert await numbers(other) == list(range(1, 32))


@pytest.mark.usefixtures("often")
async def test_compaction_does_not_disturb_writers(
    service: PersistentSessionService, uri: str
) -> None:
    await create(service)

    async def work(service: PersistentSessionService, name: str) -> None:
        for turn in range(1, 21):
            changes: dict[str, Any] = {name: turn, f"user__{name}": turn}
            said = event(f"{name} {turn}", **changes)
            while True:
                try:
                    await service.append_event(await get(service), said)
                    break
                except StaleSessionError:
                    continue

    async with create_session_service(uri) as other:
        await asyncio.gather(work(service, "a"), work(service, "b"), work(other, "c"))
    await service.store.close()
    stored = await get(service)
    assert segments(uri), "nothing was compacted"
    for name in "abc":
        said = [text for text in texts(stored) if text and text[0] == name]
        assert said == [f"{name} {turn}" for turn in range(1, 21)]
    assert stored.state == dict.fromkeys(("a", "b", "c", "user:a", "user:b", "user:c"), 20)


async def test_event_compacted_during_its_append_is_acknowledged(
    service: PersistentSessionService, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer finds a newer head, and its own event in a segment."""
    await new_log(service, 3)
    store = store_of(service)
    read_head = store._bucket.get

    async def compacted_before(name: str) -> Any:
        monkeypatch.undo()
        await until(
            lambda: any(each.endswith("/0000000004") for each in server.objects(uri, SCHEME))
        )
        monkeypatch.setattr(compaction, "COMPACT_AT", 4)
        await compaction._compact(store._bucket, store._log, store._shared, folder_of(service))
        return await read_head(name)

    monkeypatch.setattr(store._bucket, "get", compacted_before)
    await fill(service, 4, 5)
    assert len(segments(uri)) == 1
    assert await numbers(service) == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("often", "at_once")
async def test_lost_reply_about_the_head_keeps_the_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library sends the head again, and the repetition is refused because the head exists."""
    async with proxied(tmp_path) as (between, service, uri):
        await new_log(service, 9)
        bucket = store_of(service)._bucket
        write = bucket.put

        async def unlucky(name: str, *arguments: Any, **options: Any) -> Any:
            if name.endswith("/head"):
                between.inject_once(Fault.LOSE_REPLY)
            return await write(name, *arguments, **options)

        monkeypatch.setattr(bucket, "put", unlucky)
        await fill(service, 10, 35)
        assert await numbers(service) == list(range(1, 36))
        async with create_session_service(uri) as other:
            assert await numbers(other) == list(range(1, 36))


@pytest.mark.usefixtures("often")
async def test_append_succeeds_if_compaction_fails(
    service: PersistentSessionService,
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def unavailable(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("not now")

    await new_log(service)
    with monkeypatch.context() as patch:
        patch.setattr(store_of(service)._bucket, "find", unavailable)
        await fill(service, 1, 11)
    assert "put off: not now" in caplog.text
    assert segments(uri) == []
    await fill(service, 12, 12)
    assert len(segments(uri)) == 1
    assert await numbers(service) == list(range(1, 13))
