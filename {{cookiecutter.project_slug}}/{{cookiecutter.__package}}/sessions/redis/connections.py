"""Clients of redis-py for session URIs: one server, TLS, a Unix socket, Sentinel, a cluster."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from ..errors import ConfigurationError
from ..flags import boolean
from ..uri import SessionURI, positive

HEALTH_CHECK_SECONDS = 30.0
"""Seconds of idleness after which a connection is checked with PING, because a firewall may have dropped it."""

LOST = (exceptions.ConnectionError, exceptions.TimeoutError)
"""Errors after which a call is repeated. Scripts recognise a repetition."""

SOCKET_TIMEOUTS = ("socket_timeout", "socket_connect_timeout")

PAUSES = (0.01, 0.1, 0.5)
"""Seconds before a call to a cluster is repeated."""

Call = Callable[[], Awaitable[Any]]


class Client:
    """A client of redis-py in one event loop, with a limit on concurrent calls and a deadline for each.

    If a call is cancelled or exceeds its time, redis-py disconnects. So its reply cannot be mistaken for that of
    another call, and the call is not sent again.

    Args:
        redis: the client.
        limit: concurrent calls, each with its own connection. Further calls wait, for which redis-py would raise.
        timeout: seconds that a call may take with all its attempts.
        sentinels: more clients to close.
    """

    def __init__(
        self,
        redis: "redis.Redis | redis.RedisCluster",
        *,
        limit: int,
        timeout: float,
        sentinels: "Sequence[redis.Redis]" = (),
    ) -> None:
        self._redis = redis
        self._limit = limit
        self._timeout = timeout
        self._sentinels = sentinels
        self._free = asyncio.Semaphore(limit)
        self._scripts: dict[str, Any] = {}

    async def call(self, command: str, *arguments: Any) -> Any:
        """Return the reply to a command."""
        return await self._finish(lambda: self._redis.execute_command(command, *arguments))

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Return the reply of a Lua script. The script is sent to the server once."""
        if script not in self._scripts:
            self._scripts[script] = self._redis.register_script(script)
        return await self._finish(lambda: self._scripts[script](keys, arguments))

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """Yield the keys that match a pattern, perhaps twice."""
        async for key in self._redis.scan_iter(match=pattern, count=1_000):
            yield key

    async def close(self) -> None:
        """Wait for calls under way, and close all connections."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                for _ in range(self._limit):
                    await self._free.acquire()
        for client in (self._redis, *self._sentinels):
            await client.aclose()

    async def _finish(self, call: Call) -> Any:
        async with asyncio.timeout(self._timeout), self._free:
            return await self._attempt(call)

    async def _attempt(self, call: Call) -> Any:
        return await call()


class ClusterClient(Client):
    """A client of a cluster, which repeats a call that redis-py has interrupted.

    If a call is cancelled or a slot moves, `RedisCluster` may reconnect and end calls of other tasks, in version
    8 with errors of any kind. Repeating a call is harmless, because scripts recognise a repetition.
    """

    async def _attempt(self, call: Call) -> Any:
        for pause in PAUSES:
            try:
                return await call()
            except (exceptions.ConnectionError, AttributeError):
                await asyncio.sleep(pause)
        return await call()


def connector(uri: SessionURI, *, cluster: bool) -> Callable[[], Client]:
    """Return a function that opens a client for the URI. The options of clients are taken.

    Raises:
        ConfigurationError: the URI cannot work.
    """
    take = uri.options.take
    service = take("sentinel", str, "")
    limit = take("max_connections", _at_least_one, 32)
    timeout = take("socket_timeout", positive, 5.0)
    # Half, so that a silent connection can be replaced and the call repeated.
    patience: dict[str, Any] = dict.fromkeys(SOCKET_TIMEOUTS, timeout / 2)
    settings = patience | _tls(uri)
    settings |= {
        "protocol": 2,
        "username": uri.username,
        "password": uri.password,
        "max_connections": limit,
        "health_check_interval": HEALTH_CHECK_SECONDS,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.01), 3, LOST),
    }
    limits: dict[str, Any] = {"limit": limit, "timeout": timeout}
    if uri.variant == "+unix":
        settings |= {"unix_socket_path": uri.path, "db": take("db", int, 0)}
        return lambda: Client(redis.Redis(**settings), **limits)
    settings["socket_keepalive"] = True
    if cluster:
        if uri.path.strip("/") not in ("", "0"):
            raise ConfigurationError("A Redis Cluster has only database 0: leave it out.")
        nodes = _hosts(uri, 6379)
        return lambda: ClusterClient(_open_cluster(nodes, settings), **limits)
    settings["db"] = _database(uri)
    if service:
        sentinels = _hosts(uri, 26379)
        patience["retry"] = Retry(NoBackoff(), 0)  # the next sentinel is asked instead

        def open_master() -> Client:
            sentinel = redis.Sentinel(sentinels, sentinel_kwargs=patience, **settings)  # type: ignore[no-untyped-call]
            return Client(sentinel.master_for(service), sentinels=sentinel.sentinels, **limits)

        return open_master
    (settings["host"], settings["port"]), *more = _hosts(uri, 6379)
    if more:
        raise ConfigurationError(
            "The session URI names several hosts: add sentinel=<service> or cluster=true, or name one."
        )
    return lambda: Client(redis.Redis(**settings), **limits)


def _open_cluster(
    hosts: Sequence[tuple[str, int]], settings: dict[str, Any]
) -> "redis.RedisCluster":
    nodes = [redis.cluster.ClusterNode(host, port) for host, port in hosts]
    return redis.RedisCluster(startup_nodes=nodes, **settings)


def _tls(uri: SessionURI) -> dict[str, Any]:
    """Return redis-py's settings for TLS."""
    if uri.variant != "s":
        return {}
    take = uri.options.take
    return {
        "ssl": True,
        "ssl_ca_certs": take("ssl_ca_certs", _file, None),
        "ssl_certfile": take("ssl_certfile", _file, None),
        "ssl_keyfile": take("ssl_keyfile", _file, None),
        "ssl_cert_reqs": take("ssl_cert_reqs", _cert_reqs, "required"),
        "ssl_check_hostname": take("ssl_check_hostname", boolean, True),
    }


def _file(path: str) -> str:
    try:
        Path(path).open("rb").close()
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror})") from None
    return path


def _cert_reqs(text: str) -> str:
    if text not in {"required", "optional", "none"}:
        raise ValueError("write required, optional or none")
    return text


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("write 1 or more")
    return number


def _hosts(uri: SessionURI, default_port: int) -> list[tuple[str, int]]:
    try:
        parts = [urlsplit(f"//{host}") for host in (uri.hosts or "localhost").split(",")]
        return [(part.hostname or "localhost", part.port or default_port) for part in parts]
    except ValueError:
        raise ConfigurationError("A port in the session URI is not from 1 to 65535.") from None


def _database(uri: SessionURI) -> int:
    text = uri.path.strip("/")
    if text and not text.isdecimal():
        raise ConfigurationError(
            "The session URI does not end with a number: databases of Redis are 0, 1, 2 and so on."
        )
    return int(text or 0)
