"""Cloud Storage: shared state is written key by key, after the event that sets it."""

import asyncio
import zlib
from typing import Any

import pytest

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import gcs as server
from ..sessions.support import create, event, get
from .gcs_support import store_of


async def killed(*_: Any) -> Any:
    """Simulate a process that is killed before it writes."""
    raise StoreUnavailable("killed")


async def test_reader_completes_the_write_of_a_killed_process(
    service: PersistentSessionService, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await create(service, state={"user:old": 1})
    await create(service, "other")
    monkeypatch.setattr(store_of(service)._shared, "_write", killed)
    with pytest.raises(StoreUnavailable):
        await service.append_event(session, event("hi", own=1, user__name="Ada", app__motd="hi"))
    expected = {"user:old": 1, "user:name": "Ada", "app:motd": "hi"}
    async with create_session_service(uri) as reader:
        assert (await get(reader, "other")).state == {"user:old": 1}
        assert (await get(reader)).state == expected | {"own": 1}
        assert (await get(reader, "other")).state == expected


async def test_late_completion_does_not_restore_an_older_value(
    service: PersistentSessionService, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await create(service, "first"), await create(service, "second")
    with monkeypatch.context() as patch:
        patch.setattr(store_of(service)._shared, "_write", killed)
        with pytest.raises(StoreUnavailable):
            await service.append_event(first, event(user__name="older", user__alone=1))
    await service.append_event(second, event(user__name="newer"))
    async with create_session_service(uri) as reader:
        for name in ("first", "second"):
            assert (await get(reader, name)).state == {"user:name": "newer", "user:alone": 1}


async def test_damaged_value_is_omitted_and_can_be_replaced(
    service: PersistentSessionService, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    await create(service, "setter", state={"app:a": 1, "app:b": 2, "user:c": 3})
    await create(service)
    bucket, prefix = server.open_bucket(uri, SCHEME)
    damaged = {"state/key=a": b"", "user=user/state/key=c": zlib.compress(b"[]")}
    for name, content in damaged.items():
        bucket.blob(f"{prefix}/app=app/{name}").upload_from_string(content)
    bucket.client.close()
    async with create_session_service(uri) as reader:
        stored = await get(reader)
        assert stored.state == {"app:b": 2}
        assert "app=app/state/key=a" in caplog.text
        await reader.append_event(stored, event(app__a=4, user__c=5))
        for session in (await get(reader), await get(service, "setter")):
            assert session.state == {"app:a": 4, "app:b": 2, "user:c": 5}


async def test_concurrent_writes_to_the_same_key_lose_no_key(
    service: PersistentSessionService, uri: str
) -> None:
    async with create_session_service(uri) as other:

        async def work(number: int, service: PersistentSessionService) -> None:
            session = await create(service, str(number), user_id=str(number))
            for turn in range(3):
                changes: dict[str, Any] = {f"app__own{number}": turn, "app__same": turn}
                await service.append_event(session, event(**changes))

        await asyncio.gather(*(work(n, each) for n, each in enumerate((service, other) * 3)))
        state = (await create(service, "last")).state
    assert state == {f"app:own{number}": 2 for number in range(6)} | {"app:same": 2}
