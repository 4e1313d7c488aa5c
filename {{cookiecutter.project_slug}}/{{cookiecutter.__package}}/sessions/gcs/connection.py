"""The connection to a bucket: the session URI, the credentials, and the client with its threads."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import google.auth
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage import Client  # type: ignore[import-untyped]
from requests.adapters import HTTPAdapter

from ..errors import ConfigurationError
from ..uri import SessionURI, positive

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


@dataclass(frozen=True, slots=True)
class Target:
    """A bucket, and how to reach it."""

    bucket: str
    prefix: str
    emulator: str
    """The host and port of an emulator, or empty for Google Cloud Storage."""
    timeout: float
    """Seconds for a reply, and for all retries of a request together."""
    max_connections: int

    @classmethod
    def from_uri(cls, uri: SessionURI) -> "Target":
        """Return the target of a session URI. See `GCSStore.from_uri`."""
        if uri.username or uri.password:
            raise ConfigurationError(
                "Google Cloud Storage takes no user and password in the session URI: set"
                " GOOGLE_APPLICATION_CREDENTIALS to a key file, or use the machine's account."
            )
        path = uri.path if uri.variant else f"{uri.hosts}{uri.path}"
        bucket, _, prefix = path.strip("/").partition("/")
        if not bucket:
            raise ConfigurationError(
                f"The session URI names no bucket: write {uri.scheme}://"
                f"{'host:port/' if uri.variant else ''}bucket."
            )
        return cls(
            bucket,
            prefix,
            uri.hosts if uri.variant else "",
            uri.options.take("timeout", positive, 5.0),
            max(1, int(uri.options.take("max_connections", positive, 32.0))),
        )

    @property
    def location(self) -> str:
        """The bucket and the prefix, after the host of an emulator."""
        return "/".join(part for part in (self.emulator, self.bucket, self.prefix) if part)

    def open(self) -> Any:
        """Return the bucket of a new client. Finding credentials may take requests."""
        credentials: Any = (
            AnonymousCredentials()  # type: ignore[no-untyped-call]
            if self.emulator
            else google.auth.default(scopes=[SCOPE])[0]
        )
        session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
        session.auth = lambda request: request  # otherwise .netrc is read for each request
        session.trust_env = not _is_loopback(self.emulator)  # loopback must not go through a proxy
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=self.max_connections))
        options = {"api_endpoint": f"http://{self.emulator}"} if self.emulator else None
        client = Client(
            project=None, credentials=credentials, client_options=options, _http=session
        )
        return client.bucket(self.bucket)


class Connection:
    """The client and threads of one process, until the store is closed."""

    def __init__(self, target: Target) -> None:
        self.process = os.getpid()
        self.threads = ThreadPoolExecutor(target.max_connections, "gcs-request")
        self._target = target
        self._lock = Lock()
        self._bucket: Any = None

    @property
    def bucket(self) -> Any:
        """The library's bucket. Its client is opened on first use."""
        with self._lock:
            self._bucket = self._bucket or self._target.open()
            return self._bucket

    def close(self) -> None:
        """Wait for requests under way, and close the client."""
        self.threads.shutdown()
        if self._bucket:
            self._bucket.client.close()


def _is_loopback(address: str) -> bool:
    host = urlsplit(f"//{address}").hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
