"""DynamoDB: what deleted and expired sessions leave behind, and its removal."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.adk.platform import time as platform_time
from google.adk.sessions.base_session_service import GetSessionConfig

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.dynamodb.items import CLOCK_MARGIN
from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import dynamodb as server
from ..servers.dynamodb import options_of, stored_items
from ..servers.dynamodb_proxy import error, run_proxy
from ..sessions.support import APP, SESSION, USER, create, event, exists, get, texts, until

HOUR = 3_600
AFTERWARDS = CLOCK_MARGIN + 5
"""Seconds after the expiry at which a session may be removed."""

pytestmark = pytest.mark.usefixtures("clear_text")


@pytest.fixture
def clock() -> Iterator[Callable[[float], None]]:
    """Moves the clock of the service forward."""

    def forward(seconds: float) -> None:
        platform_time.set_time_provider(lambda: time.time() + seconds)

    yield forward
    platform_time.reset_time_provider()


async def clean_up(uri: str) -> None:
    """Write to a session of the app from a new process, and wait for its cleanup."""
    async with create_session_service(uri) as service:
        await create(service, "another", ttl=0)
        store: Any = service.store.innermost
        await until(lambda: not store._cleanup.tasks)
        await service.delete_session(app_name=APP, user_id=USER, session_id="another")


async def test_deleted_session_leaves_nothing(service: PersistentSessionService, uri: str) -> None:
    for ttl in (0, "1h"):
        session = await create(service, ttl=ttl, state={"own": 1})
        for number in range(30):
            await service.append_event(session, event(str(number), own=number))
        await service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert stored_items(uri) == {}


async def test_interrupted_deletion_is_completed(uri: str, clock: Callable[[float], None]) -> None:
    """A process was killed after it had deleted the head and before it deleted the events."""
    if "endpoint_url" not in options_of(uri):
        pytest.skip("DynamoDB itself refuses calls that were sent to another host.")
    async with run_proxy(uri) as proxy, create_session_service(proxy.uri) as service:
        await service.append_event(await create(service, ttl=0, state={"own": 1}), event())
        proxy.answer_next("BatchWriteItem", error("AccessDeniedException"))
        with pytest.raises(StoreUnavailable):
            await service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert not await exists(service)
        assert (await service.list_sessions(app_name=APP)).sessions == []
    assert len(stored_items(uri)) == 3
    clock(AFTERWARDS)
    await clean_up(uri)
    assert stored_items(uri) == {}


async def test_sessions_are_removed_after_their_expiry(
    service: PersistentSessionService, uri: str, clock: Callable[[float], None]
) -> None:
    for session_id, ttl in (("short", "1h"), ("long", "7d"), ("ever", 0)):
        session = await create(service, session_id, ttl=ttl, state={"own": 1})
        await service.append_event(session, event(session_id, user__kept=1))
    everything = stored_items(uri)
    clock(HOUR + CLOCK_MARGIN - 5)
    await clean_up(uri)
    assert stored_items(uri).keys() == everything.keys()
    clock(HOUR + AFTERWARDS)
    await clean_up(uri)
    left = stored_items(uri)
    assert len(everything.keys() - left.keys()) == 4
    assert left.keys() - everything.keys() == {("users/app", "user/user")}
    assert not [keys for keys in left if "short" in "".join(keys)]
    clock(7 * 24 * HOUR + AFTERWARDS)
    await clean_up(uri)
    assert len(stored_items(uri)) == 2 + 4
    assert await exists(service, "ever")


async def test_cleanup_of_an_extended_session_is_postponed(
    service: PersistentSessionService, uri: str, clock: Callable[[float], None]
) -> None:
    def due() -> int:
        [entry] = [sk for pk, sk in stored_items(uri) if pk.startswith("index")]
        return int(entry.split("/")[0])

    session = await create(service, ttl="1h")
    before = due()
    clock(HOUR / 2)
    await service.append_event(session, event("still here"))
    clock(HOUR + AFTERWARDS)
    await clean_up(uri)
    assert due() - before == pytest.approx(HOUR / 2, abs=60)
    clock(HOUR)
    assert texts(await get(service)) == ["still here"]
    assert len((await service.list_sessions(app_name=APP)).sessions) == 1
    await service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
    assert stored_items(uri) == {}


async def test_rest_is_removed_after_dynamodb_removed_the_head(
    service: PersistentSessionService, uri: str, clock: Callable[[float], None]
) -> None:
    session = await create(service, ttl="1h", state={"own": 1})
    await service.append_event(session, event())
    [head] = [item for (_, sk), item in stored_items(uri).items() if sk.startswith("head/")]
    key = {name: head[name] for name in ("pk", "sk")}
    server.client(uri).delete_item(TableName=server.table_name(uri), Key=key)
    clock(HOUR + AFTERWARDS)
    await clean_up(uri)
    assert stored_items(uri) == {}


async def test_recreated_session_is_separate_from_the_expired_one(
    service: PersistentSessionService, uri: str, clock: Callable[[float], None]
) -> None:
    old = await create(service, ttl="1h", state={"old": 1})
    for number in range(3):
        await service.append_event(old, event(f"old {number}"))
    clock(HOUR + 5)
    new = await create(service, state={"new": 1})
    await service.append_event(new, event("new"))
    for config in (None, GetSessionConfig(num_recent_events=2)):
        async with create_session_service(uri) as cold:
            assert texts(await get(cold, config=config)) == ["new"]
    assert len((await service.list_sessions(app_name=APP)).sessions) == 1
    assert len(stored_items(uri)) == 8
    clock(HOUR + AFTERWARDS)
    await clean_up(uri)
    assert len(stored_items(uri)) == 4
    stored = await get(service)
    assert (texts(stored), stored.state) == (["new"], {"new": 1})


async def test_ids_too_long_for_a_key_are_listed_unchanged(
    service: PersistentSessionService, uri: str
) -> None:
    long = {"app_name": "é" * 5_000, "user_id": "/" * 10_000}
    session = await create(service, "\0" * 10_000 + "x", **long)
    await service.append_event(session, event(user__a=1, app__b=2))
    for user_id in (long["user_id"], None):
        listed = await service.list_sessions(app_name=long["app_name"], user_id=user_id)
        [found] = listed.sessions
        assert (found.app_name, found.user_id, found.id) == (*long.values(), session.id)
        assert found.state == {"user:a": 1, "app:b": 2}
    assert all(len(sk) <= 1_024 for _, sk in stored_items(uri))
