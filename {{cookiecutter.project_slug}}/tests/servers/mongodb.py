"""A SecantusDB server from PyPI: it speaks MongoDB's protocol and stores with MongoDB's engine.

It is not MongoDB's own server. The continuous integration of this project runs the same tests on that.
"""

import atexit
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from pymongo import MongoClient

from .starting import free_port, wait

STOPS_WITHIN = 5.0
DATABASE = "adk"

EFFORT = 0.3
"""What part of the usual repetitions is tried: the driver looks for a server that failed twice a second."""

IMPATIENT = "timeoutMS=2000&directConnection=true"
"""Options of a session URI for clients that wait for nothing long, and take no other way."""


@contextmanager
def serve(directory: Path, scheme: str, *more: str) -> Iterator[str]:
    """Run a server with its data in the directory; `more` are options of its command line.

    It shows itself as a replica set of one member.
    """
    port = free_port()
    options = ["--host=127.0.0.1", f"--port={port}", f"--storage-path={directory / 'mongodb'}"]
    # No configuration file of somebody's home directory has a say in it.
    (config := directory / "secantusd.toml").touch()
    command = [sys.executable, "-m", "secantus", f"--config={config}", *options, *more]
    with (directory / "mongodb.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait(server, lambda: _knock(port), (OSError,), "mongodb.log")
        yield f"{scheme}://127.0.0.1:{port}/{DATABASE}"
    finally:
        disconnect()
        _stop(server)


def serve_standalone(directory: Path, scheme: str) -> AbstractContextManager[str]:
    """Run a server that belongs to no replica set, and so has no transactions."""
    return serve(directory, scheme, "--standalone")


@contextmanager
def namespace(uri: str, scheme: str) -> Iterator[str]:
    """Name a collection of its own, and drop it in the end."""
    parts = urlsplit(uri)
    name = f"test_{token_hex(8)}"
    query = dict(parse_qsl(parts.query)) | {"collection": name}
    yield parts._replace(query=urlencode(query)).geturl()
    client = connect(uri, scheme)
    client[parts.path.strip("/") or DATABASE].drop_collection(name)


def connect(uri: str, scheme: str) -> "MongoClient[dict[str, Any]]":
    """Return a client of the server; the tests share it, because connecting takes a while."""
    if uri not in _clients:
        _clients[uri] = _connect(uri, scheme)
    return _clients[uri]


@atexit.register
def disconnect() -> None:
    """Close all clients, while their servers can be told."""
    while _clients:
        _clients.popitem()[1].close()


_clients: "dict[str, MongoClient[dict[str, Any]]]" = {}


def _connect(uri: str, scheme: str) -> "MongoClient[dict[str, Any]]":
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    for own in ("ttl", "cache_mb", "collection"):
        options.pop(own, None)
    url = parts._replace(
        scheme=parts.scheme.replace(scheme, "mongodb", 1), query=urlencode(options)
    )
    return MongoClient(url.geturl())


def _knock(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), 1).close()


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(STOPS_WITHIN)
    except subprocess.TimeoutExpired:  # it waits for a connection that has broken
        server.kill()
        server.wait()
