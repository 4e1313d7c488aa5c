"""Redis Cluster: app state in another slot, slots that move, and cancelled calls."""

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from redis.crc import key_slot

from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from {{ cookiecutter.__package }}.sessions.redis.scripts import DELIVER
from {{ cookiecutter.__package }}.sessions.redis.store import RedisStore
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import redis as server
from ..sessions.support import APP, USER, create, event, exists, get, texts
from .figures import Figure, repetitions
from .redis_services import open_service


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of three masters."""
    with server.serve_cluster(tmp_path_factory.mktemp("cluster"), "redis") as uri:
        yield uri


@pytest.fixture
def own_uri(cluster: str) -> Iterator[str]:
    """A namespace on the cluster."""
    with server.namespace(cluster, "redis") as uri:
        yield uri


@pytest.fixture
async def service(own_uri: str) -> AsyncIterator[PersistentSessionService]:
    """A service on the cluster."""
    async with open_service(own_uri) as service:
        yield service


async def test_app_state_reaches_users_in_other_slots(service: PersistentSessionService) -> None:
    users = [f"user {number}" for number in range(6)]
    sessions = [await create(service, user_id=user) for user in users]
    for number, session in enumerate(sessions):
        await service.append_event(session, event(app__last=number, user__own=number))
        for user in users:
            assert (await get(service, user_id=user)).state["app:last"] == number
    for number, user in enumerate(users):
        assert (await get(service, user_id=user)).state["user:own"] == number


async def leave_in_outbox(
    service: PersistentSessionService, monkeypatch: pytest.MonkeyPatch, value: int
) -> None:
    """Append app state like a process that is killed before it delivers the outbox."""
    store = service.store.innermost
    assert isinstance(store, RedisStore)
    run = store.run

    async def run_until_delivery(script: str, keys: Sequence[str], *arguments: Any) -> Any:
        if script == DELIVER:
            raise redis.ConnectionError("killed")
        return await run(script, keys, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(store, "run", run_until_delivery)
        with pytest.raises(StoreUnavailable):
            await service.append_event(await get(service), event("last", app__value=value))


async def test_reader_delivers_the_outbox_of_a_killed_writer(
    service: PersistentSessionService, own_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(service)
    await create(service, user_id="other")
    await leave_in_outbox(service, monkeypatch, 1)
    assert "app:value" not in (await get(service, user_id="other")).state
    async with open_service(own_uri) as reader:
        assert (await get(reader)).state["app:value"] == 1
    assert (await get(service, user_id="other")).state["app:value"] == 1


async def test_late_delivery_does_not_overwrite_newer_state(
    service: PersistentSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(service)
    other = await create(service, user_id="other")
    await leave_in_outbox(service, monkeypatch, 1)
    await service.append_event(other, event(app__value=2))
    for user_id in (USER, "other"):
        assert (await get(service, user_id=user_id)).state["app:value"] == 2


async def test_user_without_sessions_is_not_listed(
    service: PersistentSessionService, own_uri: str
) -> None:
    await create(service)
    await create(service, user_id="other")
    await service.delete_session(app_name=APP, user_id=USER, session_id="session")
    assert [found.user_id for found in (await service.list_sessions(app_name=APP)).sessions] == [
        "other"
    ]
    store = service.store.innermost
    assert isinstance(store, RedisStore)
    assert await store.call("ZRANGE", store.prefix + ":{app}:users", 0, -1) == [b"other"]


# Before version 8, redis-py leaves connections to the garbage collector when slots move.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_appends_continue_while_slots_move(
    service: PersistentSessionService, cluster: str, figure: Figure
) -> None:
    users = [f"user{number}" for number in range(12)]
    for user in users:
        await create(service, user_id=user)
    stopped = asyncio.Event()

    async def append(user: str) -> int:
        session, count = await get(service, user_id=user), 0
        while not stopped.is_set():
            await service.append_event(session, event(str(count)))
            count += 1
        return count

    appending = [asyncio.ensure_future(append(user)) for user in users]
    for user in users:
        slot = key_slot(f"{APP}/{user}".encode())
        await asyncio.to_thread(move_slot, cluster, slot)
    stopped.set()
    for user, count in zip(users, await asyncio.gather(*appending), strict=True):
        assert texts(await get(service, user_id=user)) == [str(number) for number in range(count)]
    figure("slots moved", len(users))
    await service.close()
    gc.collect()


def move_slot(uri: str, slot: int) -> None:
    """Move a slot and its keys to another master."""
    with closing(redis.Redis(port=urlsplit(uri).port or 0)) as client:
        ports = [int(address.rpartition(":")[2]) for address in client.cluster("NODES")]
    nodes = {port: redis.Redis(port=port) for port in ports}
    names = {port: node.cluster("MYID").decode() for port, node in nodes.items()}
    [owner] = [port for port, node in nodes.items() if owns(node, slot, names[port])]
    target = ports[(ports.index(owner) + 1) % len(ports)]
    nodes[target].cluster("SETSLOT", slot, "IMPORTING", names[owner])
    nodes[owner].cluster("SETSLOT", slot, "MIGRATING", names[target])
    while keys := nodes[owner].cluster("GETKEYSINSLOT", slot, 100):
        nodes[owner].migrate("127.0.0.1", target, keys, 0, 5_000)
    for port in (target, owner, *ports):
        nodes[port].cluster("SETSLOT", slot, "NODE", names[target])
    for node in nodes.values():
        node.close()


def owns(node: "redis.Redis", slot: int, name: str) -> bool:
    """Return whether a master owns a slot."""
    for first, last, master, *_ in node.cluster("SLOTS"):
        if first <= slot <= last:
            return bool(master[2].decode() == name)
    return False


async def test_cancelled_calls_do_not_affect_others(own_uri: str, figure: Figure) -> None:
    """This holds for a new client, which does not know the cluster yet, and for an old one."""
    async with open_service(own_uri) as service:
        await create(service)
    rounds = repetitions(100, 10)
    for number in range(rounds):
        async with open_service(own_uri) as service:
            calls = [asyncio.ensure_future(get(service)) for _ in range(20)]
            await asyncio.sleep(random.random() / (50 if number % 2 else 400))
            for call in calls[::2]:
                call.cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert not [result for result in results[1::2] if isinstance(result, BaseException)]
            assert await exists(service)
    figure("cancelled", 10 * rounds)
