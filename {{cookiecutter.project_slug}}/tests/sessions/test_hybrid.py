"""What is special about PostgreSQL with copies in Redis: round trips, consistency and failures."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from google.adk.errors import StaleSessionError
from google.adk.sessions.base_session_service import GetSessionConfig

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    StoreUnavailable,
)
from {{ cookiecutter.__package }}.sessions.hybrid import copies as hybrid_copies
from {{ cookiecutter.__package }}.sessions.hybrid.copies import Floors
from {{ cookiecutter.__package }}.sessions.hybrid.store import HybridStore
from {{ cookiecutter.__package }}.sessions.postgres import store as postgres_store
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.store import SessionKey, SessionRecord

from ..servers import postgres as record_server
from ..servers import proxy
from ..servers import redis as cache_server
from ..servers.proxy import Proxy, Weather
from .support import APP, USER, create, event, exists, get, texts, until

COPIES = hybrid_copies.__name__


@pytest.fixture(scope="module")
def own_record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of its own."""
    with record_server.serve(tmp_path_factory.mktemp("record"), SCHEME) as uri:
        yield uri


@dataclass
class Servers:
    """Both servers, each behind a proxy, and services that connect through the proxies."""

    record: Proxy
    cache: Proxy
    redis: "redis.Redis"
    uri: str
    stack: AsyncExitStack

    async def service(self, **options: Any) -> PersistentSessionService:
        """Return a new service, like that of another process."""
        options = {"cache_timeout": 1.0} | options
        service = create_session_service(self.uri, **options)
        return await self.stack.enter_async_context(service)

    def restart_counting(self) -> None:
        """Reset the counts of round trips."""
        self.record.round_trips = self.cache.round_trips = 0

    @property
    def round_trips(self) -> tuple[int, int]:
        """The numbers of round trips to PostgreSQL and to Redis."""
        return self.record.round_trips, self.cache.round_trips


@pytest.fixture
async def servers(
    own_record: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Servers]:
    """Empty servers. Nothing is purged, and an unreachable Redis is retried often."""
    monkeypatch.setattr(postgres_store, "CLEAN_EVERY", 1_000.0)
    monkeypatch.setattr(hybrid_copies, "PAUSES", (0.05, 0.05))
    with (
        record_server.namespace(own_record, SCHEME) as record_uri,
        cache_server.serve(tmp_path, "redis") as cache_uri,
        closing(redis.Redis(port=urlsplit(cache_uri).port or 0)) as client,
    ):
        ports = [urlsplit(uri).port or 0 for uri in (record_uri, cache_uri)]
        async with AsyncExitStack() as stack:
            between = [
                await stack.enter_async_context(proxy.run("127.0.0.1", port)) for port in ports
            ]
            uri = record_uri.replace(str(ports[0]), str(between[0].port))
            uri += f"&max_connections=1&cache=redis://127.0.0.1:{between[1].port}/0"
            yield Servers(between[0], between[1], client, uri, stack)


@pytest.fixture
async def service(servers: Servers) -> PersistentSessionService:
    """A service on both servers."""
    return await servers.service()


@pytest.fixture
async def other(servers: Servers) -> PersistentSessionService:
    """A second service, like that of another process."""
    return await servers.service()


def save(client: "redis.Redis") -> dict[bytes, tuple[int, bytes]]:
    """Return all keys of Redis with their remaining milliseconds and values."""
    found = {key: (client.pttl(key), client.dump(key)) for key in client.scan_iter()}
    return {key: (ttl, value) for key, (ttl, value) in found.items() if value and ttl > 0}


def restore(client: "redis.Redis", saved: dict[bytes, tuple[int, bytes]]) -> None:
    """Reset Redis to a saved state, like a server that starts from its last snapshot."""
    client.flushall()
    for key, (ttl, value) in saved.items():
        client.restore(key, ttl, value)


async def until_it_is_back(service: PersistentSessionService) -> None:
    """Wait until the service uses Redis again."""
    store = service.store.innermost
    assert isinstance(store, HybridStore)
    copies = store._copies
    await until(lambda: not copies._down)


class TestRoundTrips:
    @pytest.mark.parametrize("length", [10, 1_000])
    async def test_append_costs_one_round_trip_each_and_read_one_to_redis(
        self, servers: Servers, service: PersistentSessionService, length: int
    ) -> None:
        session = await create(service, state={"app:a": 1, "user:u": 2})
        for number in range(length):
            await service.append_event(session, event(str(number), n=number))
        await get(service)
        servers.restart_counting()
        await service.append_event(session, event("one more", n=-1))
        assert servers.round_trips == (1, 1)
        assert await get(service) == session
        assert servers.round_trips == (1, 2)

    async def test_new_process_reads_from_redis(
        self, servers: Servers, service: PersistentSessionService, other: PersistentSessionService
    ) -> None:
        session = await create(service, state={"own": 1, "app:a": 1})
        await get(service)
        for number in range(500):
            await service.append_event(session, event(str(number), n=number))
        await other.check()
        servers.restart_counting()
        assert await get(other) == session
        assert servers.round_trips == (0, 1)

    @pytest.mark.parametrize("recent", [None, 0, 1, 3, 10])
    @pytest.mark.parametrize("after", [None, 0.0, 3.5, 99.0])
    async def test_filters_work_on_copies(
        self,
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
        self,
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

    async def test_large_values_are_not_copied(
        self, servers: Servers, service: PersistentSessionService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hybrid_copies, "BYTES", 2_000)
        session = await create(service, state={"user:large": "x" * 3_000})
        await get(service)
        for number in range(6):
            await service.append_event(session, event(str(number) * 800))
            assert await get(service) == session
        sizes = [servers.redis.memory_usage(key) or 0 for key in servers.redis.scan_iter()]
        assert sum(sizes) < 8_000


class TestConsistency:
    async def test_acknowledged_write_is_seen_by_all(
        self, service: PersistentSessionService, other: PersistentSessionService
    ) -> None:
        await create(service, "1", state={"app:a": 0})
        await create(other, "2")
        for number in range(10):
            for one, two in ((service, other), (other, service)):
                session = await get(one, "1")
                await one.append_event(session, event(own=number, app__a=number, user__u=number))
                assert (await get(two, "1")).state == session.state
                assert (await get(two, "2")).state == {"app:a": number, "user:u": number}

    async def test_slow_read_does_not_overwrite_a_newer_copy(
        self,
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

    async def test_recreated_session_replaces_the_copy(
        self, service: PersistentSessionService, other: PersistentSessionService
    ) -> None:
        first = await create(service, state={"first": True})
        await service.append_event(await get(service), event("first"))
        assert texts(await get(other)) == ["first"]
        await service.delete_session(app_name=APP, user_id=USER, session_id=first.id)
        assert not await exists(other)
        second = await create(other, state={"second": True})
        assert (await get(service)).state == (await get(other)).state == {"second": True}
        with pytest.raises(StaleSessionError):
            await service.append_event(first, event("late"))
        await other.append_event(second, event("second"))
        assert texts(await get(service)) == ["second"]

    async def test_restored_redis_is_not_trusted(
        self, servers: Servers, service: PersistentSessionService
    ) -> None:
        session = await create(service, state={"user:u": 0, "app:a": 0})
        await get(service)
        saved = save(servers.redis)
        assert len(saved) == 3
        await service.append_event(session, event("news", own=1, user__u=1, app__a=1))
        restore(servers.redis, saved)
        assert await get(service) == session
        assert (await get(service)).state == {"own": 1, "user:u": 1, "app:a": 1}

    async def test_stale_write_drops_the_copy(
        self, servers: Servers, service: PersistentSessionService
    ) -> None:
        await create(service)
        await get(service)
        # A process that was killed before it could tell Redis.
        async with _without_cache(servers) as killed:
            await killed.append_event(await get(killed), event("only in the record"))
        old = await get(service)
        assert old.events == []
        with pytest.raises(StaleSessionError):
            await service.append_event(old, event("refused"))
        assert texts(await get(service)) == ["only in the record"]

    async def test_outdated_copy_is_not_mixed_with_newer_state(
        self, servers: Servers, service: PersistentSessionService, other: PersistentSessionService
    ) -> None:
        await create(service, state={"user:name": "Ada"})
        await get(service)
        # A process that was killed before it could tell Redis.
        async with _without_cache(servers) as killed:
            await killed.append_event(await get(killed), event("only in the record"))
        await create(service, "another", state={"user:name": "Countess"})
        for reader in (service, other, service):
            session = await get(reader)
            assert texts(session) == ["only in the record"]
            assert session.state["user:name"] == "Countess"

    async def test_copies_expire(self, servers: Servers) -> None:
        service = await servers.service(cache_ttl=0.2)
        await create(service)
        await get(service)
        async with _without_cache(servers) as killed:
            await killed.append_event(await get(killed), event("only in the record"))
        await asyncio.sleep(0.3)
        assert texts(await get(service)) == ["only in the record"]

    async def test_repeated_append_is_recognised(
        self, servers: Servers, service: PersistentSessionService
    ) -> None:
        session = await create(service)
        await get(service)
        servers.record.weather = Weather.LOSE_REPLY
        said = event("once")
        with pytest.raises(StoreUnavailable):
            await service.append_event(session, said)
        servers.record.weather = Weather.FINE
        await service.append_event(session, said)
        assert texts(session) == texts(await get(service)) == ["once"]

    async def test_cancelled_write_leaves_no_outdated_copy(
        self, servers: Servers, service: PersistentSessionService
    ) -> None:
        session = await create(service)
        await get(service)
        servers.cache.weather = Weather.SILENCE
        appending = asyncio.ensure_future(service.append_event(session, event("cancelled")))
        async with _without_cache(servers) as record:
            for _ in range(6_000):
                if texts(await get(record)) == ["cancelled"]:
                    break
                await asyncio.sleep(0.01)
        appending.cancel()
        await asyncio.wait([appending])
        servers.cache.weather = Weather.FINE
        assert texts(await get(service)) == ["cancelled"]


def _without_cache(servers: Servers) -> PersistentSessionService:
    """Return a service that writes to PostgreSQL and does not tell Redis."""
    service = create_session_service(servers.uri)
    assert isinstance(service.store.innermost, HybridStore)
    service.store = service.store.innermost._record
    return service


class TestFailures:
    @pytest.mark.parametrize("weather", [Weather.REFUSE, Weather.SILENCE, Weather.LOSE_REPLY])
    async def test_service_works_without_redis_and_recovers(
        self, servers: Servers, weather: Weather, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger=COPIES)
        service = await servers.service(cache_timeout=1.0)
        session = await create(service, state={"user:u": 0})
        await service.append_event(session, event("before"))
        await get(service)
        servers.cache.weather = weather
        started = asyncio.get_running_loop().time()
        for number in range(20):
            await service.append_event(session, event(str(number), user__u=number))
            assert await get(service) == session
        assert await exists(service)
        await create(service, "another")
        assert len((await service.list_sessions(app_name=APP)).sessions) == 2
        # If each of more than forty calls had waited for Redis, it would have taken 40 seconds.
        assert asyncio.get_running_loop().time() - started < 30.0
        [warning] = [item for item in caplog.records if item.levelno >= logging.WARNING]
        assert warning.getMessage().startswith("Redis at 127.0.0.1:")
        servers.cache.weather = Weather.FINE
        await until_it_is_back(service)
        assert await get(service) == session
        servers.restart_counting()
        assert await get(service) == session
        assert servers.round_trips == (0, 1)
        assert caplog.messages[-1].endswith("is back.")

    async def test_failed_update_is_outdated_only_briefly(
        self, servers: Servers, service: PersistentSessionService
    ) -> None:
        cut_off = await servers.service(cache_timeout=1.0)
        session = await create(cut_off, state={"app:a": 0})
        assert (await get(service)).events == []
        servers.cache.weather = Weather.SILENCE
        await cut_off.append_event(session, event("unknown to Redis", app__a=1))
        servers.cache.weather = Weather.FINE
        await until_it_is_back(cut_off)
        assert await get(service) == session

    async def test_flushed_redis_is_refilled(
        self, servers: Servers, service: PersistentSessionService, caplog: pytest.LogCaptureFixture
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

    async def test_full_redis_is_not_used(
        self, servers: Servers, service: PersistentSessionService, caplog: pytest.LogCaptureFixture
    ) -> None:
        session = await create(service)
        await service.append_event(session, event("before"))
        await get(service)
        servers.redis.config_set("maxmemory", 1)
        for number in range(5):
            await service.append_event(session, event(str(number), user__u=number))
            assert await get(service) == session
        [warning] = caplog.records
        assert "its memory is full" in warning.getMessage()
        servers.redis.config_set("maxmemory", 0)
        await until_it_is_back(service)
        assert await get(service) == session

    async def test_redis_may_be_unreachable_at_start(
        self, servers: Servers, caplog: pytest.LogCaptureFixture
    ) -> None:
        servers.cache.weather = Weather.REFUSE
        service = await servers.service()
        await service.check()
        assert [item.levelno for item in caplog.records] == [logging.WARNING]
        await create(service)
        assert await exists(service)

    async def test_postgresql_is_required(
        self, servers: Servers, service: PersistentSessionService
    ) -> None:
        session = await create(service)
        await get(service)
        servers.record.weather = Weather.REFUSE
        with pytest.raises(StoreUnavailable, match="PostgreSQL at"):
            await service.append_event(session, event())
        servers.record.weather = Weather.FINE
        assert (await get(service)).events == session.events == []

    @pytest.mark.parametrize("seed", range(4))
    async def test_no_process_reads_older_data_than_it_wrote(
        self, servers: Servers, seed: int, caplog: pytest.LogCaptureFixture
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
                    servers.cache.weather = dice.choice([Weather.SILENCE, Weather.REFUSE])
                    was_fine = False
                case 4 | 5:
                    servers.cache.weather = Weather.FINE
                case 6 | 7 | 8 | 9 | 10:
                    session = await get(service, name)
                    try:
                        await service.append_event(session, event(str(step), app__n=step))
                    except StaleSessionError:
                        assert not was_fine, "somebody read an old copy although Redis was fine"
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
        servers.cache.weather = Weather.FINE
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


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ("", "names no cache"),
            ("?cache=memcached://h", "memcached"),
            ("?cache=redis://h:port", "port number"),
            ("?cache=redis://h/0?colour=blue", "colour"),
            ("?cache=redis://h/0?cluster=true", "cluster"),
            ("?cache=redis://h/0&cache_ttl=0", "cache_ttl"),
            ("?cache=redis://h/0&colour=blue", "colour"),
        ],
    )
    def test_invalid_uri_is_refused(self, options: str, said: str) -> None:
        with pytest.raises(ConfigurationError, match=said):
            create_session_service(f"{SCHEME}://h/db{options}")

    async def test_password_is_not_shown(
        self, servers: Servers, caplog: pytest.LogCaptureFixture
    ) -> None:
        servers.redis.config_set("requirepass", "right")
        servers.uri = servers.uri.replace("cache=redis://", "cache=redis://:secret@")
        service = await servers.service()
        await service.check()
        [warning] = caplog.records
        assert "refuses the credentials" in warning.getMessage()
        assert "secret" not in warning.getMessage() + str(service)

    async def test_documented_permissions_are_sufficient(
        self, servers: Servers, caplog: pytest.LogCaptureFixture
    ) -> None:
        servers.redis.acl_setuser(
            "agent",
            enabled=True,
            passwords=["+secret"],
            keys=["sessions:*"],
            categories=["+@read", "+@write", "+@connection", "+@scripting", "-@dangerous"],
            commands=["+time"],
        )
        servers.uri = servers.uri.replace("cache=redis://", "cache=redis://agent:secret@")
        service = await servers.service()
        await service.check()
        session = await create(service)
        await get(service)
        await service.append_event(session, event())
        servers.restart_counting()
        assert await get(service) == session
        assert servers.round_trips == (0, 1)
        assert caplog.records == []
