"""Calls to DynamoDB through the SDK (aiobotocore).

The SDK retries a call that was throttled or got no reply, with the same `ClientRequestToken`, by which DynamoDB
recognises a completed transaction. The SDK retries neither conflicts with other transactions nor unprocessed items
of a batch. That is done here, because all writers of the same `app:` or `user:` state must succeed.
"""

import asyncio
import random
import time
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader

from ..errors import StoreUnavailable
from ..per_loop import PerLoop
from .errors import THROTTLED, DynamoDBError, explain
from .options import Options

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
LOADER = Loader()
"""A cache of the SDK's description of DynamoDB, which takes 0.1 s to read."""


class Backoff:
    """Growing random pauses between retries, so that writers that collided do not collide again."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._longest = FIRST_PAUSE

    async def pause(self) -> bool:
        """Wait before the next try. Return False if there is no time left."""
        pause = random.uniform(0, self._longest)  # noqa: S311
        if time.monotonic() + pause > self._deadline:
            return False
        await asyncio.sleep(pause)
        self._longest = min(2 * self._longest, LONGEST_PAUSE)
        return True


class LoopClient:
    """The SDK's client for one event loop."""

    def __init__(self, options: Options) -> None:
        self._opening = asyncio.ensure_future(open_client(options))
        self._calls = 0
        self._idle = asyncio.Event()

    async def call(self, operation: str, parameters: dict[str, Any]) -> Any:
        """Carry out an operation."""
        self._calls += 1
        self._idle.clear()
        try:
            client = await asyncio.shield(self._opening)
            return await getattr(client, operation)(**parameters)
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def close(self) -> None:
        """Wait for the calls in progress, and close the connections.

        Otherwise the outcome of a write would be unknown.
        """
        if self._calls:
            await self._idle.wait()
        await asyncio.wait([self._opening])
        if not self._opening.cancelled() and self._opening.exception() is None:
            await self._opening.result().close()


class Client:
    """Calls DynamoDB from any event loop, and raises errors of this package."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._clients = PerLoop(lambda: LoopClient(options), LoopClient.close)

    async def close(self) -> None:
        """Close the connections of the running loop, after the calls in progress."""
        await self._clients.close()

    async def call(self, operation: str, **parameters: Any) -> Any:
        """Carry out an operation, and retry it after conflicts with other transactions."""
        backoff = Backoff(2 * self.options.timeout)
        while True:
            try:
                return await self._call_once(operation, parameters)
            except DynamoDBError as error:
                if not (error.conflict and await backoff.pause()):
                    raise

    async def call_batch(self, operation: str, request: Any) -> list[Any]:
        """Carry out a batch with all its unprocessed items, and return the replies."""
        backoff = Backoff(2 * self.options.timeout)
        replies = []
        while True:
            reply = await self.call(operation, RequestItems=request)
            replies.append(reply)
            request = reply.get("UnprocessedKeys") or reply.get("UnprocessedItems")
            if not request:
                return replies
            if not await backoff.pause():
                raise StoreUnavailable(f"DynamoDB table {self.options.location}: {THROTTLED}.")

    async def _call_once(self, operation: str, parameters: dict[str, Any]) -> Any:
        try:
            async with asyncio.timeout(2 * self.options.timeout):
                return await self._clients.get().call(operation, parameters)
        except (BotoCoreError, ClientError, OSError) as error:
            raise explain(error, self.options.location) from error


async def open_client(options: Options) -> Any:
    """Return a client of the SDK for the running loop."""
    session = AioSession(profile=options.profile)
    session.register_component("data_loader", LOADER)
    mode = session.get_config_variable("retry_mode")
    config = AioConfig(
        connect_timeout=options.timeout,
        read_timeout=options.timeout,
        max_pool_connections=options.max_connections,
        # The SDK's old default of ten tries takes longer than any call may take.
        retries={"mode": "standard" if mode == "legacy" else mode},
        proxies={} if urlsplit(options.endpoint_url or "").hostname in LOOPBACK else None,
    )
    client = session.create_client(
        "dynamodb",
        region_name=options.region,
        endpoint_url=options.endpoint_url,
        aws_access_key_id=options.access_key,
        aws_secret_access_key=options.secret_key,
        config=config,
    )
    return await client.__aenter__()
