"""Copies in Redis never show data that PostgreSQL does not have, whatever fails between the two."""

import asyncio
from random import Random
from typing import Any

import pytest
from google.adk.errors import StaleSessionError
from google.adk.sessions.base_session_service import GetSessionConfig

from {{ cookiecutter.__package }}.sessions.errors import (
    StoreUnavailable,
)
from {{ cookiecutter.__package }}.sessions.hybrid import copies as hybrid_copies
from {{ cookiecutter.__package }}.sessions.hybrid.copies import Floors
from {{ cookiecutter.__package }}.sessions.hybrid.store import HybridStore
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.store import SessionKey, SessionRecord

from ..servers import hybrid_proxied
from ..servers.hybrid_proxied import Servers, restore, save, until_it_is_back, without_cache
from ..servers.proxy import Fault
from ..sessions.support import create, event, get, texts

own_record, servers, service, other = (
    hybrid_proxied.own_record,
    hybrid_proxied.servers,
    hybrid_proxied.service,
    hybrid_proxied.other,
)


@pytest.mark.parametrize("recent", [None, 0, 1, 3, 10])
@pytest.mark.parametrize("after", [None, 0.0, 3.5, 99.0])
async def test_filters_work_on_copies(
    servers: Servers,
    service: PersistentSessionService,
    other: PersistentSessionService,
    recent: int | None,
    after: float | None,
) -> None:
    session = await create(service)
    await get(service)
    for number, timestamp in enumerate((1.0, 5.0, 2.0, 6.0, 4.0, 7.0)):
        await service.append_event(session, event(str(number), timestamp=timestamp))
    config = GetSessionConfig(num_recent_events=recent, after_timestamp=after)
    await other.check()
    servers.restart_counting()
    copied = await get(other, config=config)
    assert servers.round_trips == (0, 1)
    servers.redis.flushall()
    recorded = await get(await servers.service(), config=config)
    assert texts(copied) == texts(recorded)


async def test_long_session_is_copied_from_its_end(
    servers: Servers,
    service: PersistentSessionService,
    other: PersistentSessionService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hybrid_copies, "EVENTS", 5)
    session = await create(service)
    for number in range(12):
        await service.append_event(session, event(str(number)))
        await get(service)
    await get(other, config=GetSessionConfig(num_recent_events=1))
    servers.restart_counting()
    last = await get(other, config=GetSessionConfig(num_recent_events=5))
    assert servers.round_trips == (0, 1)
    assert texts(last) == ["7", "8", "9", "10", "11"]
    assert texts(await get(other)) == texts(session)
    stranger = await servers.service()
    await stranger.check()
    servers.restart_counting()
    assert texts(await get(stranger)) == texts(session)
    assert servers.cache.round_trips == 1  # the full session is not copied


async def test_slow_read_does_not_overwrite_a_newer_copy(
    service: PersistentSessionService,
    other: PersistentSessionService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = await create(service, state={"user:u": 0, "app:a": 0})
    assert isinstance(other.store.innermost, HybridStore)
    load, has_read, goes_on = (
        other.store.innermost._record.load,
        asyncio.Event(),
        asyncio.Event(),
    )

    async def slow_load(key: SessionKey, **arguments: Any) -> SessionRecord | None:
        found = await load(key, **arguments)
        has_read.set()
        await goes_on.wait()
        return found

    monkeypatch.setattr(other.store.innermost._record, "load", slow_load)
    reading = asyncio.ensure_future(get(other))
    await has_read.wait()
    await service.append_event(session, event("news", own=1, user__u=1, app__a=1))
    goes_on.set()
    await reading
    assert await get(other) == await get(service) == session


async def test_restored_redis_is_not_trusted(
    servers: Servers, service: PersistentSessionService
) -> None:
    session = await create(service, state={"user:u": 0, "app:a": 0})
    await get(service)
    saved = save(servers.redis)
    assert len(saved) == 3
    await service.append_event(session, event("news", own=1, user__u=1, app__a=1))
    restore(servers.redis, saved)
    assert await get(service) == session
    assert (await get(service)).state == {"own": 1, "user:u": 1, "app:a": 1}


async def test_copies_of_a_newer_version_are_replaced(
    servers: Servers, service: PersistentSessionService, other: PersistentSessionService
) -> None:
    """It has renamed two of their fields."""
    session = await create(service, state={"user:u": 0, "app:a": 0})
    for number in range(3):
        assert await get(other) == await get(service) == session
        for name in servers.redis.scan_iter("*[de]"):  # `:head` and `:state`
            servers.redis.hdel(name, "at", "incarnation")
            servers.redis.hset(name, "at_2", "now")
        if number:
            await service.append_event(session, event("news", own=number, user__u=number))


async def test_stale_write_drops_the_copy(
    servers: Servers, service: PersistentSessionService
) -> None:
    await create(service)
    await get(service)
    # A process that was killed before it could tell Redis.
    async with without_cache(servers) as killed:
        await killed.append_event(await get(killed), event("only in the record"))
    old = await get(service)
    assert old.events == []
    with pytest.raises(StaleSessionError):
        await service.append_event(old, event("refused"))
    assert texts(await get(service)) == ["only in the record"]


async def test_copies_expire(servers: Servers) -> None:
    service = await servers.service(cache_ttl=0.2)
    await create(service)
    await get(service)
    async with without_cache(servers) as killed:
        await killed.append_event(await get(killed), event("only in the record"))
    await asyncio.sleep(0.3)
    assert texts(await get(service)) == ["only in the record"]


async def test_repeated_append_is_recognised(
    servers: Servers, service: PersistentSessionService
) -> None:
    session = await create(service)
    await get(service)
    servers.record.fault = Fault.LOSE_REPLY
    said = event("once")
    with pytest.raises(StoreUnavailable):
        await service.append_event(session, said)
    servers.record.fault = Fault.NONE
    await service.append_event(session, said)
    assert texts(session) == texts(await get(service)) == ["once"]


@pytest.mark.usefixtures("clear_text")
async def test_cancelled_write_leaves_no_outdated_copy(
    servers: Servers, service: PersistentSessionService
) -> None:
    session = await create(service)
    await get(service)
    servers.cache.fault = Fault.SILENCE
    appending = asyncio.ensure_future(service.append_event(session, event("cancelled")))
    async with without_cache(servers) as record:
        for _ in range(6_000):
            if texts(await get(record)) == ["cancelled"]:
                break
            await asyncio.sleep(0.01)
    appending.cancel()
    await asyncio.wait([appending])
    servers.cache.fault = Fault.NONE
    assert texts(await get(service)) == ["cancelled"]


async def test_failed_update_is_outdated_only_briefly(
    servers: Servers, service: PersistentSessionService
) -> None:
    cut_off = await servers.service(cache_timeout=1.0)
    session = await create(cut_off, state={"app:a": 0})
    assert (await get(service)).events == []
    servers.cache.fault = Fault.SILENCE
    await cut_off.append_event(session, event("unknown to Redis", app__a=1))
    servers.cache.fault = Fault.NONE
    await until_it_is_back(cut_off)
    assert await get(service) == session


async def test_flushed_redis_is_refilled(
    servers: Servers, service: PersistentSessionService, caplog: pytest.LogCaptureFixture
) -> None:
    session = await create(service)
    for number in range(5):
        await service.append_event(session, event(str(number)))
        servers.redis.flushall()
        servers.redis.script_flush()
        assert await get(service) == session
    servers.restart_counting()
    assert await get(service) == session
    assert servers.round_trips == (0, 1)
    assert caplog.records == []


@pytest.mark.parametrize("seed", range(4))
async def test_no_process_reads_older_data_than_it_wrote(
    servers: Servers, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Random calls of several processes, while Redis loses data, hangs or is restored."""
    dice = Random(seed)
    services = [await servers.service(cache_timeout=0.05) for _ in range(3)]
    names = ("one", "two")
    for name in names:
        await create(services[0], name, state={"app:n": 0})
    events = dict.fromkeys(names, 0)
    acknowledged = [dict.fromkeys(("app:n", *names), 0) for _ in services]
    was_fine, saved = True, save(servers.redis)
    everywhere = dict.fromkeys(("app:n", *names), 0)
    for step in range(1, 250):
        number, name = dice.randrange(len(services)), dice.choice(names)
        service, known = services[number], acknowledged[number]
        was_fine &= not caplog.records  # on a busy machine, Redis may not answer in time
        match dice.randrange(20):
            case 0:
                servers.redis.flushall()
            case 1:
                saved = save(servers.redis)
            case 2:
                restore(servers.redis, saved)
                was_fine = False
            case 3:
                servers.cache.fault = dice.choice([Fault.SILENCE, Fault.REFUSE])
                was_fine = False
            case 4 | 5:
                servers.cache.fault = Fault.NONE
            case 6 | 7 | 8 | 9 | 10:
                session = await get(service, name)
                try:
                    await service.append_event(session, event(str(step), app__n=step))
                except StaleSessionError:
                    assert not was_fine, "an old copy was read although Redis was fine"
                    session = await get(service, name)
                    await service.append_event(session, event(str(step), app__n=step))
                events[name] += 1
                known |= {name: events[name], "app:n": step}
                everywhere |= known
                everywhere[name] = events[name]
                assert len(session.events) == events[name]
            case _:
                session = await get(service, name)
                expected = everywhere if was_fine else known
                assert len(session.events) >= expected[name]
                assert session.state["app:n"] >= expected["app:n"]
    servers.cache.fault = Fault.NONE
    for name in names:
        fresh = await get(await servers.service(cache_ttl=0.001), name)
        assert len(fresh.events) == events[name]


def test_too_many_writes_disable_copies() -> None:
    floors = Floors(keep=60, most=3)
    for number in range(3):
        floors.doubt([(str(number),)])
    assert not floors.blind
    floors.doubt([("one more",)])
    assert floors.blind
