"""Fixtures with both servers of the hybrid behind proxies. Test modules import them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.hybrid import copies as hybrid_copies
from {{ cookiecutter.__package }}.sessions.hybrid.store import HybridStore
from {{ cookiecutter.__package }}.sessions.postgres import store as postgres_store
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..sessions.support import until
from . import postgres as record_server
from . import proxy
from . import redis as cache_server
from .proxy import Proxy

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


def without_cache(servers: Servers) -> PersistentSessionService:
    """Return a service that writes to PostgreSQL and does not tell Redis."""
    service = create_session_service(servers.uri)
    assert isinstance(service.store.innermost, HybridStore)
    service.store = service.store.innermost._record
    return service
