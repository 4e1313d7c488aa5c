"""A bucket as `gcs.py` uses it: small objects, written on a condition, listed, and deleted.

What is small is also written into the object's metadata, because a list of objects comes with their
metadata: one request then reads a hundred events. The service takes 8 KiB of it; the emulator on a
usual file system takes 4.

`google-cloud-storage` blocks. Operations run in one pool of threads, and the requests that an operation
makes at the same time in another, so that they never wait for each other's threads.
"""

import asyncio
import json
import logging
import random
import re
import threading
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import google.auth
import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.oauth2.service_account import Credentials
from requests.adapters import HTTPAdapter

from ..errors import ConfigurationError, CorruptSession, SessionStoreError, StoreUnavailable

try:
    from google.cloud import storage  # type: ignore[import-untyped]
    from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-untyped]
except ImportError:  # others have a google.cloud too, so that it is no missing module
    package = "google-cloud-storage"
    raise ModuleNotFoundError(f"No package {package}", name=package) from None

T = TypeVar("T")

logger = logging.getLogger(__name__)

LISTED = 3_000
"""Characters of content that fit into an object's metadata."""
PATIENCE = 30.0
"""Seconds to go on with what others keep changing."""
FIELDS = "name,generation,timeCreated,metadata"
REQUESTS = "gcs-request"
"""What the names of threads begin with that make one request each."""
REQUEST = re.compile(r"[A-Z]+ https?://\S+: ")
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
ROLE = "roles/storage.objectUser"

UNHAPPY = (
    *(api.GoogleAPICallError, api.RetryError, auth.GoogleAuthError),
    *(requests.RequestException, OSError),
    *(ValueError, TypeError, AttributeError, LookupError, zlib.error),
)
"""What the library raises; the last ones when it takes an answer apart that was cut short."""

Connect = Callable[[], "storage.Bucket"]


class Gone(Exception):
    """This generation of an object has been deleted or replaced."""


@dataclass(frozen=True, slots=True)
class Item:
    """One generation of an object."""

    name: str
    generation: int
    time: int
    """When it was written, by the clock of the service, in microseconds."""
    listed: str | None = None
    """Its content, if that is small enough to come with a list."""


class Bucket:
    """Objects under their names. Its methods block, but for `run` and `close`."""

    def __init__(self, connect: Connect, *, location: str, timeout: float, threads: int) -> None:
        self.location = location
        self._connect = connect
        self._timeout = timeout
        self._retry = DEFAULT_RETRY.with_delay(0.05, 1.0, 2.0).with_timeout(timeout)
        self._threads = threads
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._operations = ThreadPoolExecutor(self._threads, "gcs-operation")
        self._requests = ThreadPoolExecutor(self._threads, REQUESTS)
        self._opened: storage.Bucket | None = None

    async def run(self, operation: Callable[..., T], *arguments: Any) -> T:
        """Run an operation in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._operations, operation, *arguments)

    def run_later(self, operation: Callable[..., object], *arguments: Any) -> None:
        """Run what nobody waits for; `close` does."""

        def run() -> None:
            try:
                operation(*arguments)
            except SessionStoreError as error:
                logger.warning("Housekeeping was put off: %s", error)

        self._operations.submit(run)

    def together(self, *calls: Callable[[], Any]) -> list[Any]:
        """Make several requests at the same time; the first may do so itself."""
        if len(calls) < 2 or threading.current_thread().name.startswith(REQUESTS):
            return [call() for call in calls]
        others = [self._requests.submit(call) for call in calls[1:]]
        return [calls[0](), *(other.result() for other in others)]

    def patiently(self) -> Iterator[None]:
        """Give others time to get done between tries, but for the first two, and give up in the end."""
        deadline, pause = time.monotonic() + PATIENCE, 0.0
        while time.monotonic() < deadline:
            yield
            time.sleep(random.uniform(0, pause))  # noqa: S311
            pause = min(max(0.02, 2 * pause), 1.0)
        raise StoreUnavailable(
            f"Google Cloud Storage at {self.location}: other processes changed the same object for"
            f" {PATIENCE:g} seconds; try again, or let fewer sessions write the same state key."
        )

    async def close(self) -> None:
        """Wait for what is going on, and close all connections."""
        with self._lock:
            operations, others, opened = self._operations, self._requests, self._opened
            self._reset()

        def close() -> None:
            operations.shutdown()
            others.shutdown()
            if opened is not None:
                opened.client.close()

        await asyncio.get_running_loop().run_in_executor(None, close)

    def put(
        self,
        name: str,
        content: bytes,
        *,
        generation: int = 0,
        keep_until: float | None = None,
        listed: bool = True,
    ) -> Item | None:
        """Write an object if this is its generation now, 0 for none; None if it is not."""
        body = zlib.compress(content)
        text = b64encode(body).decode()
        with self._translated():
            blob = self._bucket.blob(name)
            if listed and len(text) <= LISTED:
                blob.metadata, body = {"content": text}, b""
            if keep_until is not None:
                blob.custom_time = datetime.fromtimestamp(keep_until, UTC)
            try:
                blob.upload_from_string(
                    body,
                    content_type="application/octet-stream",
                    if_generation_match=generation,
                    **self._limits,
                )
            except api.PreconditionFailed:
                return None
            return _item(blob)

    def get(self, name: str) -> Item | None:
        """Return an object, with its content if that is small."""
        with self._translated():
            blob = self._bucket.blob(name)
            try:
                blob.reload(**self._limits)
            except api.NotFound:
                return None
            return _item(blob)

    def read(self, item: Item, decode: Callable[[bytes], T]) -> T:
        """Return what an object holds.

        Raises:
            Gone: it has been deleted or replaced in the meantime.
            CorruptSession: it holds something else.
        """
        packed = None if item.listed is not None else self._fetch(item)
        try:
            return decode(
                zlib.decompress(b64decode(item.listed or "") if packed is None else packed)
            )
        except (ValueError, TypeError, LookupError, AttributeError, zlib.error) as error:
            raise CorruptSession(
                f"Google Cloud Storage at {self.location}: the object {item.name!r} cannot be read"
                f" ({_first_line(str(error))}); it was damaged, or written by another version."
            ) from error

    def _fetch(self, item: Item) -> bytes:
        with self._translated():
            blob = self._bucket.blob(item.name, generation=item.generation)
            try:
                content: bytes = blob.download_as_bytes(raw_download=True, **self._limits)
            except api.NotFound:
                raise Gone(item.name) from None
            return content

    def read_all(self, items: Iterable[Item], decode: Callable[[bytes], T]) -> list[T]:
        """Return what several objects hold, like `read`."""
        items = list(items)
        large = [item for item in items if item.listed is None]
        read = self.together(*(partial(self.read, item, decode) for item in large))
        fetched = dict(zip((item.name for item in large), read, strict=True))
        return [
            fetched[item.name] if item.listed is None else self.read(item, decode) for item in items
        ]

    def find(self, prefix: str, start: str = "", limit: int | None = None) -> list[Item]:
        """Return the objects whose names begin with the prefix, from `start` on, in order."""
        with self._translated():
            blobs = self._bucket.list_blobs(
                prefix=prefix,
                start_offset=start or None,
                max_results=limit,
                fields=f"items({FIELDS}),nextPageToken",
                **self._limits,
            )
            return [_item(blob) for blob in blobs]

    def delete(self, item: Item) -> bool:
        """Delete an object, and return whether it had not been replaced in the meantime."""
        with self._translated():
            try:
                self._bucket.delete_blob(
                    item.name, if_generation_match=item.generation, **self._limits
                )
            except api.NotFound:
                return True
            except api.PreconditionFailed:
                return False
            return True

    @property
    def _limits(self) -> dict[str, Any]:
        return {"timeout": (self._timeout, self._timeout), "retry": self._retry}

    @property
    def _bucket(self) -> "storage.Bucket":
        with self._lock:
            if self._opened is None:
                self._opened = self._connect()
            return self._opened

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say in a sentence what went wrong."""
        try:
            yield
        except SessionStoreError:
            raise
        except UNHAPPY as error:
            raise StoreUnavailable(
                f"Google Cloud Storage at {self.location}: {self._explain(error)}."
            ) from error

    def _explain(self, error: Exception) -> str:
        cause = error.cause if isinstance(error, api.RetryError) and error.cause else error
        if isinstance(cause, auth.TransportError) and isinstance(cause.args[0], Exception):
            cause = cause.args[0]
        match cause:
            case auth.InvalidOperation() | api.Unauthorized() | auth.RefreshError():
                return "it refuses the credentials; check that they are valid and not expired"
            case auth.GoogleAuthError():
                return (
                    f"it needs credentials ({_first_line(str(cause))}); set"
                    " GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login"
                )
            case api.Forbidden():
                return (
                    f"the account may not do that ({_reason(cause)}); grant it {ROLE} on the bucket"
                )
            case api.NotFound():
                return "there is no such bucket; create it, or check its name in the session URI"
            case api.TooManyRequests():
                return (
                    "it takes no more requests for the moment; one object can be written about"
                    " once a second, so look whether all sessions write the same state key"
                )
            case requests.exceptions.SSLError() if "WRONG_VERSION_NUMBER" in str(cause):
                return "it does not speak TLS; use the scheme with +http"
            case requests.exceptions.SSLError():
                return "its certificate is not trusted; name its authority in REQUESTS_CA_BUNDLE"
            case requests.Timeout():
                return f"it did not answer within {self._timeout:g} seconds; check the network"
            case requests.ConnectionError():
                return "it cannot be reached; check the network, and the host in the session URI"
            case api.GoogleAPICallError():
                return f"it answers {cause.code} ({_reason(cause)})"
            case ValueError():
                pass
            case requests.RequestException() | OSError() | api.RetryError():
                return _first_line(str(cause)) or type(cause).__name__
        return "it answers what Google Cloud Storage would not; check the host in the session URI"


def _item(blob: "storage.Blob") -> Item:
    created: datetime = blob.time_created
    written = int(created.timestamp()) * 1_000_000 + created.microsecond
    return Item(blob.name, int(blob.generation), written, (blob.metadata or {}).get("content"))


def _reason(error: api.GoogleAPICallError) -> str:
    """Return what the service itself has said, without the request that it was about."""
    text = REQUEST.sub("", error.message)
    with suppress(ValueError, LookupError, TypeError):
        text = json.JSONDecoder().raw_decode(text)[0]["error"]["message"]
    return _first_line(text)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip(".")[:200]


def _from_key_file(path: str) -> Any:
    try:
        load = Credentials.from_service_account_file
        return load(path, scopes=[SCOPE])  # type: ignore[no-untyped-call]
    except OSError as error:
        problem = str(error.strerror)
    except (ValueError, LookupError, AttributeError, auth.GoogleAuthError):
        problem = "it is not the key of a service account"
    raise ConfigurationError(
        f"The key file {path} of the option credentials cannot be used: {problem}."
    )


def connector(
    name: str,
    *,
    endpoint: str,
    emulated: bool,
    project: str | None,
    key_file: str | None,
    threads: int,
) -> Connect:
    """Return what opens the bucket, when it is first used: to find credentials may take requests."""

    def connect() -> "storage.Bucket":
        credentials: Any
        if emulated:
            credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
        elif key_file:
            credentials = _from_key_file(key_file)
        else:
            credentials, _ = google.auth.default(scopes=[SCOPE])
        session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
        session.auth = lambda request: request  # or it looks into .netrc for each request
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=2 * threads))
        client = storage.Client(
            project=project or "-",
            credentials=credentials,
            client_options={"api_endpoint": endpoint} if endpoint else None,
            _http=session,
        )
        return client.bucket(name)

    return connect
