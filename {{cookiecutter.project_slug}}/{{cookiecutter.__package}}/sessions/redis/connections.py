"""From a session URI to connections: one server, TLS, a Unix socket, Sentinel, a cluster."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import ExponentialBackoff, NoBackoff

from ..errors import ConfigurationError
from ..uri import SessionURI, boolean, positive
from .lanes import Lanes

DRIVER_OPTIONS: dict[str, tuple[Callable[[str], Any], Any]] = {
    "socket_connect_timeout": (positive, 5.0),
    "socket_keepalive": (boolean, True),
    "client_name": (str, None),
}
TLS_OPTIONS: dict[str, tuple[Callable[[str], Any], Any]] = {
    "ssl_ca_certs": (str, None),
    "ssl_certfile": (str, None),
    "ssl_keyfile": (str, None),
    "ssl_cert_reqs": (str, "required"),
    "ssl_check_hostname": (boolean, True),
}
"""redis-py's names of its options, with ours as the defaults."""


class Client(Protocol):
    """What sends commands in one event loop."""

    async def call(self, command: tuple[Any, ...], *, brief: bool) -> Any:
        """Return the reply to a command; a brief one is quickly done and its reply small."""

    async def aclose(self) -> None:
        """Close all connections."""


class Cluster:
    """redis-py's client of a cluster, which knows where each key is.

    A call goes on when its caller is cancelled: redis-py would leave a socket open that it is just connecting.
    """

    def __init__(self, client: redis.RedisCluster, *, most: int, timeout: float) -> None:
        self._client = client
        # As many calls at once as there are connections: others wait, where redis-py's pool would raise.
        self._free = asyncio.Semaphore(most)
        self._timeout = timeout
        self._calls: set[asyncio.Task[Any]] = set()

    async def call(self, command: tuple[Any, ...], *, brief: bool) -> Any:
        """Return the reply to a command."""
        call = asyncio.create_task(self._call(command))
        self._calls.add(call)
        call.add_done_callback(self._end)
        return await asyncio.shield(call)

    async def aclose(self) -> None:
        """Let the calls that are under way come to their end, and close all connections."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=self._timeout)
        await self._client.aclose()

    async def _call(self, command: tuple[Any, ...]) -> Any:
        async with asyncio.timeout(self._timeout), self._free:
            return await self._client.execute_command(*command)

    def _end(self, call: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # which nobody may be there to hear


class Watched(SentinelConnectionPool):
    """Connections to the master of the moment; those to the sentinels end with them."""

    async def aclose(self) -> None:
        """Close all connections."""
        await super().aclose()
        for sentinel in self.sentinel_manager.sentinels:
            await sentinel.aclose()


def connector(uri: SessionURI, *, cluster: bool) -> Callable[[], Client]:
    """Return what opens a client of the server that the URI names, and take the options that are its own.

    Raises:
        ConfigurationError: the URI names no server that there could be.
    """
    take = uri.options.take
    service = take("sentinel", str, "")
    timeout = take("socket_timeout", positive, 5.0)
    most = take("max_connections", int, 64)
    idle = take("health_check_interval", positive, 30.0)
    settings: dict[str, Any] = {"username": uri.username, "password": uri.password}
    # Ours is around the whole call; and with RESP3 a server may change redis-py's in mid-flight.
    settings |= {"socket_timeout": None, "protocol": 2}
    tls = TLS_OPTIONS if uri.variant == "s" else {}
    for name, (convert, default) in (DRIVER_OPTIONS | tls).items():
        settings[name] = take(name, convert, default)
    backoff = ExponentialBackoff(cap=0.5, base=0.01)
    retry = Retry(backoff, 3, supported_errors=(exceptions.ConnectionError,))
    if cluster:
        if uri.path.strip("/") not in ("", "0"):
            raise ConfigurationError("A Redis Cluster has only database 0: leave it out.")
        hosts = _hosts(uri, 6379)
        settings |= {"retry": retry, "max_connections": most, "health_check_interval": idle}

        def open_cluster() -> Client:
            nodes = [redis.cluster.ClusterNode(host, port) for host, port in hosts]
            client = redis.RedisCluster(startup_nodes=nodes, ssl=bool(tls), **settings)
            return Cluster(client, most=most, timeout=timeout)

        return open_cluster
    settings["retry"] = Retry(NoBackoff(), 0)  # whoever asks for the connection tries again
    if uri.variant == "+unix":
        settings |= {"path": uri.path, "db": take("db", int, 0)}
        del settings["socket_keepalive"]
        pool = _pool(UnixDomainSocketConnection, settings)
    elif service:
        settings["db"] = _database(uri)
        patience = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        pool = _watched(_hosts(uri, 26379), service, patience, settings | {"ssl": bool(tls)})
    else:
        settings["db"] = _database(uri)
        [(settings["host"], settings["port"])] = _hosts(uri, 6379)[:1]
        pool = _pool(SSLConnection if tls else Connection, settings)
    return lambda: Lanes(pool(), most=most, timeout=timeout, idle=idle, retry=retry)


def _pool(
    kind: type[AbstractConnection], settings: dict[str, Any]
) -> Callable[[], redis.ConnectionPool]:
    return lambda: redis.ConnectionPool(connection_class=kind, **settings)


def _watched(
    hosts: list[tuple[str, int]], service: str, patience: dict[str, Any], settings: dict[str, Any]
) -> Callable[[], redis.ConnectionPool]:
    def open_() -> redis.ConnectionPool:
        sentinel = redis.Sentinel(hosts, sentinel_kwargs=patience, **settings)  # type: ignore[no-untyped-call]
        pool: redis.ConnectionPool = sentinel.master_for(
            service, connection_pool_class=Watched
        ).connection_pool
        return pool

    return open_


def _hosts(uri: SessionURI, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for text in (uri.hosts or "localhost").split(","):
        host, _, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
        if not host:
            host, port = text, ""
        try:
            hosts.append((host.strip("[]"), int(port or default_port)))
        except ValueError:
            raise ConfigurationError(f"Port {port!r} in the session URI is not a number.") from None
    return hosts


def _database(uri: SessionURI) -> int:
    text = uri.path.strip("/")
    if text and not text.isdecimal():
        raise ConfigurationError(
            f"Database {text!r} in the session URI is not a number: Redis has 0, 1, 2 and so on."
        )
    return int(text or 0)
