"""What is special about PostgreSQL with copies in Redis: round trips, consistency and failures."""

import asyncio
import logging
from urllib.parse import parse_qsl, urlsplit

import pytest
import redis
from google.adk.errors import StaleSessionError

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    StoreUnavailable,
)
from {{ cookiecutter.__package }}.sessions.hybrid import copies as hybrid_copies
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import hybrid_proxied
from ..servers.hybrid_proxied import COPIES, Servers, until_it_is_back, without_cache
from ..servers.proxy import Fault
from .support import APP, MARK, USER, create, event, exists, get, plant_and_erase, texts

own_record, servers, service, other = (
    hybrid_proxied.own_record,
    hybrid_proxied.servers,
    hybrid_proxied.service,
    hybrid_proxied.other,
)


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

    async def test_outdated_copy_is_not_mixed_with_newer_state(
        self, servers: Servers, service: PersistentSessionService, other: PersistentSessionService
    ) -> None:
        await create(service, state={"user:name": "Ada"})
        await get(service)
        # A process that was killed before it could tell Redis.
        async with without_cache(servers) as killed:
            await killed.append_event(await get(killed), event("only in the record"))
        await create(service, "another", state={"user:name": "Countess"})
        for reader in (service, other, service):
            session = await get(reader)
            assert texts(session) == ["only in the record"]
            assert session.state["user:name"] == "Countess"


class TestFailures:
    @pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.SILENCE, Fault.LOSE_REPLY])
    async def test_service_works_without_redis_and_recovers(
        self, servers: Servers, fault: Fault, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger=COPIES)
        service = await servers.service(cache_timeout=1.0)
        session = await create(service, state={"user:u": 0})
        await service.append_event(session, event("before"))
        await get(service)
        servers.cache.fault = fault
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
        servers.cache.fault = Fault.NONE
        await until_it_is_back(service)
        assert await get(service) == session
        servers.restart_counting()
        assert await get(service) == session
        assert servers.round_trips == (0, 1)
        assert caplog.messages[-1].endswith("is back.")

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
        servers.cache.fault = Fault.REFUSE
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
        servers.record.fault = Fault.REFUSE
        with pytest.raises(StoreUnavailable, match="PostgreSQL at"):
            await service.append_event(session, event())
        servers.record.fault = Fault.NONE
        assert (await get(service)).events == session.events == []


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


async def test_erased_data_is_in_no_copy(uri: str) -> None:
    async with create_session_service(uri) as service:
        await plant_and_erase(service)
    cache = urlsplit(dict(parse_qsl(urlsplit(uri).query))["cache"])
    with redis.Redis(port=cache.port or 0) as client:
        keys = list(client.scan_iter(count=1000))
    assert [key for key in keys if MARK.encode() in key] == []
