"""Requests to a bucket: conditional writes, lists, reads and deletions of small objects.

The content of a small object is in its metadata. A list returns the metadata of its objects, so one request reads
a hundred events. The service allows 8 KiB of metadata, and the emulator 4 KiB on most file systems.
"""

import asyncio
import os
import random
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from google.api_core import exceptions as api
from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-untyped]

from ..errors import CorruptSession, StoreUnavailable
from .connection import Connection, Target
from .errors import MALFORMED, Gone, explained, first_line

T = TypeVar("T")

INLINE = 3_000
"""Characters of content in the metadata of an object at most."""
PATIENCE = 30.0
"""Seconds of retries while other processes change the same object."""
DELETIONS = 16
"""Objects that are deleted at the same time. The limit leaves threads for other calls."""
FIELDS = "items(name,generation,timeCreated,metadata),nextPageToken"


@dataclass(frozen=True, slots=True)
class Item:
    """One generation of an object."""

    name: str
    generation: int = 0
    """0 to read the current one."""
    time: float = 0.0
    """The time of the write in epoch seconds, by the clock of the service."""
    inline: str | None = None
    """The content, if it is in the metadata."""


class Bucket:
    """Each method makes one request, unless it says otherwise.

    The library retries a failed request until `timeout`. If the reply of a write was lost, its retry fails on its
    own earlier success. So a failed condition does not mean that nothing was written.
    """

    def __init__(self, target: Target) -> None:
        self.location = target.location
        self._target = target
        self._connections = [Connection(target)]
        """The last one is in use. In a forked process, the others belong to the parent. They are never touched,
        because their sockets are shared and their locks may be held for ever."""
        retry = DEFAULT_RETRY.with_delay(0.05, 1.0, 2.0).with_timeout(target.timeout)
        self._limits = {"timeout": (target.timeout, target.timeout), "retry": retry}

    async def put(
        self,
        name: str,
        content: bytes,
        *,
        generation: int = 0,
        custom_time: float | None = None,
        inline: bool = True,
    ) -> Item | None:
        """Write an object if its generation is this one, 0 for none. Return None if it is another."""
        body = zlib.compress(content)
        text = b64encode(body).decode()
        fits = inline and len(text) <= INLINE

        def put(bucket: Any) -> Item | None:
            blob = bucket.blob(name)
            if fits:
                blob.metadata = {"content": text}
            if custom_time is not None:
                blob.custom_time = datetime.fromtimestamp(custom_time, UTC)
            try:
                blob.upload_from_string(
                    b"" if fits else body,
                    content_type="application/octet-stream",
                    if_generation_match=generation,
                    **self._limits,
                )
            except api.PreconditionFailed:
                return None
            return _item(blob)

        return await self._request(put)

    async def get(self, name: str) -> Item | None:
        """Return an object, with its content if it is small."""

        def get(bucket: Any) -> Item | None:
            blob = bucket.blob(name)
            try:
                blob.reload(**self._limits)
            except api.NotFound:
                return None
            return _item(blob)

        return await self._request(get)

    async def find(self, prefix: str, start: str = "") -> list[Item]:
        """Return the objects with this prefix, from `start` on, in the order of their names.

        This takes a request for each thousand objects.
        """

        def find(bucket: Any) -> list[Item]:
            blobs = bucket.list_blobs(
                prefix=prefix, start_offset=start or None, fields=FIELDS, **self._limits
            )
            return [_item(blob) for blob in blobs]

        return await self._request(find)

    async def folders(self, prefix: str) -> list[str]:
        """Return the names below a prefix up to the next slash. See `find`."""

        def folders(bucket: Any) -> list[str]:
            found = bucket.list_blobs(
                prefix=prefix, delimiter="/", fields="prefixes,nextPageToken", **self._limits
            )
            return [name for page in found.pages for name in page.prefixes]

        return await self._request(folders)

    async def read(self, item: Item, decode: Callable[[bytes], T]) -> T:
        """Return the decoded content of an object. A small object takes no request.

        Raises:
            Gone: it has been deleted or replaced meanwhile.
            CorruptSession: it cannot be decoded.
        """
        if item.inline is not None:
            return self._decoded(item, item.inline.encode(), decode)
        ((_, value),) = await self.read_all([item], decode)
        return value

    async def read_all(
        self, items: Iterable[Item], decode: Callable[[bytes], T]
    ) -> list[tuple[Item, T]]:
        """Return objects with their decoded contents, in any order. See `read`."""
        items = list(items)
        small = [item for item in items if item.inline is not None]
        large = [[item] for item in items if item.inline is None]

        def read(group: list[Item], bucket: Any) -> list[tuple[Item, T]]:
            return [(item, self._decoded(item, self._body(item, bucket), decode)) for item in group]

        parts = await asyncio.gather(
            *(self._request(partial(read, group)) for group in (small, *large))
        )
        return [pair for part in parts for pair in part]

    def _body(self, item: Item, bucket: Any) -> bytes:
        if item.inline is not None:
            return item.inline.encode()
        blob = bucket.blob(item.name, generation=item.generation or None)
        try:
            body: bytes = blob.download_as_bytes(raw_download=True, **self._limits)
        except api.NotFound:
            raise Gone(item.name) from None
        return body

    def _decoded(self, item: Item, body: bytes, decode: Callable[[bytes], T]) -> T:
        try:
            return decode(zlib.decompress(body if item.inline is None else b64decode(body)))
        except MALFORMED as error:
            raise CorruptSession(
                f"Google Cloud Storage at {self.location}: the object {item.name!r} cannot be read"
                f" ({first_line(error)}); it was damaged, or written by another version."
            ) from error

    async def postpone(self, item: Item, custom_time: float) -> None:
        """Set the custom time of an object.

        Raises:
            Gone: it has been deleted.
        """

        def patch(bucket: Any) -> None:
            blob = bucket.blob(item.name)
            blob.custom_time = datetime.fromtimestamp(custom_time, UTC)
            try:
                blob.patch(**self._limits)
            except api.NotFound:
                raise Gone(item.name) from None

        await self._request(patch)

    async def delete(self, item: Item) -> bool:
        """Delete an object. Return False if it has been replaced meanwhile."""

        def delete(bucket: Any) -> bool:
            try:
                bucket.delete_blob(item.name, if_generation_match=item.generation, **self._limits)
            except api.NotFound:
                pass
            except api.PreconditionFailed:
                return False
            return True

        return await self._request(delete)

    async def delete_all(self, items: Iterable[Item]) -> None:
        """Delete objects with one request each."""
        waiting = iter(items)

        async def delete() -> None:
            for item in waiting:
                await self.delete(item)

        await asyncio.gather(*(delete() for _ in range(DELETIONS)))

    async def pause(self, began: float) -> None:
        """Wait before a retry while other processes change the same object.

        Args:
            began: the time of the first try, by `time.monotonic()`.
        """
        waited = time.monotonic() - began
        if waited > PATIENCE:
            raise StoreUnavailable(
                f"Google Cloud Storage at {self.location}: other processes changed the same object for"
                f" {PATIENCE:g} seconds; try again, or let fewer sessions write the same state key."
            )
        await asyncio.sleep(random.uniform(0, min(waited, 1.0)))  # noqa: S311

    async def close(self) -> None:
        """Wait for requests under way, and close all connections."""
        connection, self._connections[-1] = self._connection(), Connection(self._target)
        await asyncio.to_thread(connection.close)

    async def _request(self, request: Callable[[Any], T]) -> T:
        """Call a function with the library's bucket in a thread, because the library blocks."""
        connection, loop = self._connection(), asyncio.get_running_loop()
        with explained(self.location, self._target.timeout):
            return await loop.run_in_executor(
                connection.threads, lambda: request(connection.bucket)
            )

    def _connection(self) -> Connection:
        if self._connections[-1].process != os.getpid():
            self._connections.append(Connection(self._target))
        return self._connections[-1]


def _item(blob: Any) -> Item:
    written = blob.time_created.timestamp()
    return Item(blob.name, int(blob.generation), written, (blob.metadata or {}).get("content"))
