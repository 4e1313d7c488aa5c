"""A DynamoDB table as `dynamodb.py` uses it, through the SDK (aiobotocore).

The SDK repeats what was throttled or got no answer. What it leaves to its callers is done here:
transactions that were refused because of others, and batches of which only a part was done.
"""

import asyncio
import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader

from ..errors import StoreUnavailable
from ..per_loop import PerLoop
from .errors import THROTTLED, Answered, explained
from .items import Item, item, key_of

ATTEMPTS = 5
"""How often the SDK tries, unless its own settings say otherwise."""
PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds to wait at most after the first refusal, doubled with each more, up to the second."""
TABLE_READY_WITHIN = 60.0
READ_BATCH, WRITE_BATCH = 100, 25
"""Items that DynamoDB takes in one batch."""
BATCHES_AT_ONCE = 8
STREAMED_ABOVE = 500_000
PASSING = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
"""Why a transaction is refused although nothing is wrong with it."""
NOBODYS_FILES = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""Where the session URI brings credentials, as for an emulator, the SDK reads no files."""
LOADER = Loader()
"""Keeps what the SDK knows of DynamoDB, which takes it a tenth of a second to read."""


class Refused(Exception):
    """The condition of a transaction's first action does not hold."""

    def __init__(self, found: Item | None) -> None:
        super().__init__("condition not met")
        self.found = found
        """The item as it is; None where there is none."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the SDK gets to DynamoDB. What is None is left to its own settings."""

    region: str | None
    endpoint_url: str | None
    profile: str | None
    access_key: str | None
    secret_key: str | None = field(repr=False)
    timeout: float
    max_connections: int


class Patience:
    """Pauses between tries: they grow, no two writers' are the same, and they come to an end."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._longest = PAUSE

    async def pause(self) -> bool:
        """Wait before another try, or return that there is no time for one."""
        pause = random.uniform(0, self._longest)  # noqa: S311
        if time.monotonic() + pause > self._deadline:
            return False
        await asyncio.sleep(pause)
        self._longest = min(2 * self._longest, LONGEST_PAUSE)
        return True


class Client:
    """The SDK's client of one event loop, opened by whoever needs it first: `async with` each call."""

    def __init__(self, open_: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._open = open_
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._calls = 0
        self._idle = asyncio.Event()

    async def __aenter__(self) -> Any:
        self._calls += 1
        self._idle.clear()
        try:
            async with self._lock:
                if self._client is None:
                    client = await self._stack.enter_async_context(self._open())
                    client.meta.events.register("before-send.dynamodb", _stream_if_large)
                    self._client = client
        except BaseException:
            self._end()
            raise
        return self._client

    async def __aexit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._calls -= 1
        if not self._calls:
            self._idle.set()

    async def close(self) -> None:
        """Close its connections when the calls that are under way have ended, as each does in time.

        Closed under a call, the SDK would try it again and again on connections that are no more, and
        then not know whether it was carried out.
        """
        if self._calls:
            await self._idle.wait()
        await self._stack.aclose()


class Table:
    """A table with the keys `pk` and `sk`, both of them texts."""

    def __init__(self, name: str, access: Access, *, location: str) -> None:
        self._name = name
        self._access = access
        self._location = location
        self._clients = PerLoop(lambda: Client(self._open), Client.close)

    async def close(self) -> None:
        """Close the connections of the running loop."""
        await self._clients.close()

    # Reading.

    async def get(self, *keys: Item) -> list[Item | None]:
        """Return items as they were at one moment, which is why each costs twice its read."""
        actions = [{"Get": {"TableName": self._name, "Key": key}} for key in keys]
        reply = await self._insist("transact_get_items", TransactItems=actions)
        return [answer.get("Item") for answer in reply["Responses"]]

    async def get_one(self, key: Item) -> Item | None:
        """Return one item as it is now."""
        reply = await self._call("get_item", TableName=self._name, Key=key, ConsistentRead=True)
        found: Item | None = reply.get("Item")
        return found

    async def get_many(self, keys: Sequence[Item]) -> list[Item]:
        """Return those of the items that are there, in any order."""
        found: list[Item] = []

        async def read(left: Sequence[Item]) -> Sequence[Item]:
            asked = {self._name: {"Keys": left, "ConsistentRead": True}}
            reply = await self._call("batch_get_item", RequestItems=asked)
            found.extend(reply["Responses"].get(self._name, ()))
            left = reply.get("UnprocessedKeys", {}).get(self._name, {}).get("Keys", ())
            return left

        await self._in_batches(read, keys, READ_BATCH)
        return found

    async def query(
        self,
        pk: str,
        *,
        between: tuple[str, str] | None = None,
        backwards: bool = False,
        limit: int | None = None,
        start: Item | None = None,
        keys_only: bool = False,
    ) -> tuple[list[Item], Item | None]:
        """Return a page of the items of a partition, and where the next one starts if there is one."""
        expression, values = "pk = :pk", {":pk": {"S": pk}}
        if between is not None:
            expression += " AND sk BETWEEN :low AND :high"
            values |= {":low": {"S": between[0]}, ":high": {"S": between[1]}}
        more: dict[str, Any] = {}
        if limit is not None:
            more["Limit"] = limit
        if start is not None:
            more["ExclusiveStartKey"] = start
        if keys_only:
            more["ProjectionExpression"] = "pk, sk"
        reply = await self._call(
            "query",
            TableName=self._name,
            KeyConditionExpression=expression,
            ExpressionAttributeValues=values,
            ScanIndexForward=not backwards,
            ConsistentRead=True,
            **more,
        )
        return reply["Items"], reply.get("LastEvaluatedKey")

    async def pages(self, pk: str, *, keys_only: bool = False) -> AsyncIterator[list[Item]]:
        """Yield all items of a partition, page by page."""
        start = None
        while True:
            items, start = await self.query(pk, start=start, keys_only=keys_only)
            yield items
            if start is None:
                return

    # Writing.

    async def transact(self, *actions: tuple[str, Any]) -> None:
        """Carry out all actions or none.

        Raises:
            Refused: a condition does not hold.
            ValueError: an item would become too large.
        """
        named = [{kind: {"TableName": self._name} | action} for kind, action in actions]
        try:
            await self._insist("transact_write_items", TransactItems=named)
        except Answered as error:
            if "ConditionalCheckFailed" in error.reasons:
                raise Refused(error.found) from None
            if error.too_large:
                raise ValueError(
                    "What is to be stored is too large: DynamoDB takes at most 400 KB for the state of"
                    " a session, of a user or of an app, and 4 MB in one step. Keep large values as"
                    " artifacts."
                ) from None
            raise

    async def delete(self, key: Item, condition: dict[str, Any]) -> bool:
        """Delete an item if the condition holds, and return whether it did."""
        try:
            await self._call("delete_item", TableName=self._name, Key=key, **condition)
        except Answered as error:
            if error.code != "ConditionalCheckFailedException":
                raise
            return False
        return True

    async def delete_many(self, items: Sequence[Item]) -> None:
        """Delete items; those that are not there are no error."""

        async def delete(left: Sequence[Any]) -> Sequence[Any]:
            reply = await self._call("batch_write_item", RequestItems={self._name: left})
            left = reply.get("UnprocessedItems", {}).get(self._name, ())
            return left

        requests = [{"DeleteRequest": {"Key": key_of(found)}} for found in items]
        await self._in_batches(delete, requests, WRITE_BATCH)

    # The table itself.

    async def create(self) -> None:
        """Create the table, billed by use, unless it is there, and have DynamoDB clean it."""
        keys = {"pk": "HASH", "sk": "RANGE"}
        await self._unless(
            "ResourceInUseException",
            "create_table",
            TableName=self._name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
            KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in keys.items()],
        )
        deadline = time.monotonic() + TABLE_READY_WITHIN
        while True:
            reply = await self._call("describe_table", TableName=self._name)
            if reply["Table"]["TableStatus"] != "CREATING":
                break
            if time.monotonic() > deadline:
                raise self._error("it takes too long to be created; look at it in the AWS console")
            await asyncio.sleep(0.2)
        reply = await self._call("describe_time_to_live", TableName=self._name)
        if reply["TimeToLiveDescription"]["TimeToLiveStatus"] == "DISABLED":
            # Somebody who creates it at the same moment may have done it since.
            await self._unless(
                "ValidationException",
                "update_time_to_live",
                TableName=self._name,
                TimeToLiveSpecification={"Enabled": True, "AttributeName": "purge_at"},
            )

    async def try_permissions(self) -> None:
        """Do all that is ever done, to items that are never there and with nothing to show for it."""
        first, second, third = (item("permissions", place) for place in "123")
        never = {"ConditionExpression": "attribute_exists(pk)"}
        change = {"UpdateExpression": "SET x = :x", "ExpressionAttributeValues": {":x": {"N": "1"}}}

        async def write() -> None:
            with suppress(Refused):
                await self.transact(
                    ("Put", {"Item": first} | never),
                    ("Update", {"Key": second} | change | never),
                    ("Delete", {"Key": third} | never),
                )

        await asyncio.gather(
            write(),
            self.get(first),
            self.get_many([first]),
            self.query("permissions", limit=1),
            self.delete_many([first]),
        )

    # The SDK.

    def _open(self) -> AbstractAsyncContextManager[Any]:
        access = self._access
        session = AioSession(session_vars=NOBODYS_FILES if access.access_key else None)
        session.register_component("data_loader", LOADER)
        if access.profile is not None:
            session.set_config_variable("profile", access.profile)
        retries: dict[str, Any] = {}
        if session.get_config_variable("max_attempts") is None:
            retries["total_max_attempts"] = ATTEMPTS
        if session.get_config_variable("retry_mode") == "legacy":
            retries["mode"] = "standard"
        return session.create_client(
            "dynamodb",
            region_name=access.region,
            endpoint_url=access.endpoint_url,
            aws_access_key_id=access.access_key,
            aws_secret_access_key=access.secret_key,
            config=AioConfig(
                connect_timeout=access.timeout,
                read_timeout=access.timeout,
                max_pool_connections=access.max_connections,
                retries=retries,
            ),
        )

    async def _call(self, operation: str, **parameters: Any) -> Any:
        try:
            async with asyncio.timeout(2 * self._access.timeout), self._clients.get() as client:
                return await getattr(client, operation)(**parameters)
        except (BotoCoreError, ClientError, OSError) as error:
            raise explained(error, self._location) from error

    async def _insist(self, operation: str, **parameters: Any) -> Any:
        """Carry out a transaction, again and again where others are in its way.

        The token is what DynamoDB recognises a call by that the SDK repeats after a lost reply.
        """
        patience = Patience(2 * self._access.timeout)
        while True:
            if operation == "transact_write_items":
                parameters["ClientRequestToken"] = secrets.token_hex(16)
            try:
                return await self._call(operation, **parameters)
            except Answered as error:
                passing = error.reasons & PASSING and "ConditionalCheckFailed" not in error.reasons
                if not (passing and await patience.pause()):
                    raise

    async def _in_batches(
        self,
        work: Callable[[Sequence[Any]], Awaitable[Sequence[Any]]],
        items: Sequence[Any],
        size: int,
    ) -> None:
        """Do the work in batches, some of them at once; `work` returns what is left of one."""

        async def finish(left: Sequence[Any]) -> None:
            patience = Patience(2 * self._access.timeout)
            while left := await work(left):
                if not await patience.pause():
                    raise self._error(THROTTLED)

        batches = [items[start : start + size] for start in range(0, len(items), size)]
        for first in range(0, len(batches), BATCHES_AT_ONCE):
            await asyncio.gather(*map(finish, batches[first : first + BATCHES_AT_ONCE]))

    async def _unless(self, code: str, operation: str, **parameters: Any) -> None:
        """Make a call; that DynamoDB answers with this code is fine."""
        try:
            await self._call(operation, **parameters)
        except Answered as error:
            if error.code != code:
                raise

    def _error(self, problem: str) -> StoreUnavailable:
        return StoreUnavailable(f"DynamoDB table {self._location}: {problem}.")


def _stream_if_large(request: Any, **_: Any) -> None:
    """Hand a large body over as a stream, of which a piece at a time is sent.

    aiohttp warns that it would keep other tasks waiting otherwise.
    """
    if isinstance(request.body, bytes) and len(request.body) > STREAMED_ABOVE:
        request.body = BytesIO(request.body)
