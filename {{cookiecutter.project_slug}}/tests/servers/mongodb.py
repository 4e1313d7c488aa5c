"""A SecantusDB server from PyPI. It speaks MongoDB's protocol and uses MongoDB's storage engine.

It is not MongoDB. CI runs the same tests on MongoDB itself.
"""

import atexit
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from pymongo import MongoClient
from pymongo.collection import Collection

from .starting import free_port, knock, run

PACKAGE = "SecantusDB>=0.7.0b3,<0.8"
DATABASE = "adk"

EFFORT = 0.3
"""After a failure, the driver looks for its server only every half second."""

IMPATIENT = "timeoutMS=2000&directConnection=true"
"""Options of a session URI for a client that gives up soon and uses only the given address."""


@contextmanager
def serve(directory: Path, scheme: str, *more: str) -> Iterator[str]:
    """Run a replica set of one member with its data in the directory. `more` are server options."""
    port = free_port()
    options = ["--host=127.0.0.1", f"--port={port}", f"--storage-path={directory / 'mongodb'}"]
    # Without this file, the server would read one in the home directory.
    (config := directory / "secantusd.toml").touch()
    command = [*_secantus(), f"--config={config}", *options, *more]
    with run(command, lambda: knock(port), (OSError,), directory / "mongodb.log"):
        try:
            yield f"{scheme}://127.0.0.1:{port}/{DATABASE}"
        finally:
            disconnect()


def serve_standalone(directory: Path, scheme: str, *more: str) -> AbstractContextManager[str]:
    """Run a standalone server, which has no transactions and no retryable writes."""
    return serve(directory, scheme, "--standalone", *more)


@contextmanager
def namespace(uri: str, scheme: str) -> Iterator[str]:
    """Return a URI with a collection of its own, and drop it in the end."""
    parts = urlsplit(uri)
    name = f"test_{token_hex(8)}"
    query = dict(parse_qsl(parts.query)) | {"collection": name}
    yield parts._replace(query=urlencode(query)).geturl()
    client = connect(uri, scheme)
    client[parts.path.strip("/") or DATABASE].drop_collection(name)


def collection(uri: str, scheme: str) -> "Collection[dict[str, Any]]":
    """Return the collection of a URI from `namespace`."""
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    name = options.pop("collection")
    client = connect(parts._replace(query=urlencode(options)).geturl(), scheme)
    return client[parts.path.strip("/") or DATABASE][name]


def connect(uri: str, scheme: str) -> "MongoClient[dict[str, Any]]":
    """Return a client of the server. Tests share it, because connecting is slow."""
    if uri not in _clients:
        _clients[uri] = _connect(uri, scheme)
    return _clients[uri]


@atexit.register
def disconnect() -> None:
    """Close all clients before their servers end."""
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


def _secantus() -> list[str]:
    """Return the command of the server. Python 3.14 has no wheel, so uv runs it on 3.13."""
    if find_spec("secantus"):
        return [sys.executable, "-m", "secantus"]
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise RuntimeError(
            f"{PACKAGE} is not installed, and there is no uv to run it: use `make test`."
        )
    return [uv, "tool", "run", "--python=3.13", f"--from={PACKAGE}", "python", "-m", "secantus"]
