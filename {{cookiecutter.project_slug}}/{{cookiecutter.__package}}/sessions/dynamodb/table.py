"""Reads and writes items of a table with the string keys `pk` and `sk`."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from .client import Client
from .errors import DynamoDBError
from .keys import Item

READ_BATCH, WRITE_BATCH = 100, 25
"""DynamoDB's limit of a batch."""
CONCURRENT_BATCHES = 8

Action = tuple[str, Any]
"""One action of a transaction: `("Put", {"Item": …})`."""


class ConditionFailed(Exception):
    """The condition of the first action of a transaction failed."""

    def __init__(self, item: Item | None) -> None:
        super().__init__("condition failed")
        self.item = item
        """The current item, or None."""


class Table:
    """The table of a client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.name = client.options.table

    async def get(self, *keys: Item) -> list[Item | None]:
        """Return a consistent snapshot of items. DynamoDB bills each read twice."""
        actions = [{"Get": {"TableName": self.name, "Key": key}} for key in keys]
        reply = await self.client.call("transact_get_items", TransactItems=actions)
        return [answer.get("Item") for answer in reply["Responses"]]

    async def get_one(self, key: Item) -> Item | None:
        """Return the current state of one item."""
        reply = await self.client.call(
            "get_item", TableName=self.name, Key=key, ConsistentRead=True
        )
        found: Item | None = reply.get("Item")
        return found

    async def get_many(self, keys: Sequence[Item]) -> list[Item]:
        """Return the existing items, in any order."""
        requests = [{"Keys": batch, "ConsistentRead": True} for batch in _split(keys, READ_BATCH)]
        replies = await self._in_batches("batch_get_item", requests)
        return [item for reply in replies for item in reply["Responses"].get(self.name, ())]

    async def query(
        self,
        pk: str,
        *,
        between: tuple[str, str] = ("0", "~"),
        start: Item | None = None,
        **options: Any,
    ) -> tuple[list[Item], Item | None]:
        """Return a page of a partition, and the start of the next page, if any."""
        if start is not None:
            options["ExclusiveStartKey"] = start
        reply = await self.client.call(
            "query",
            TableName=self.name,
            KeyConditionExpression="pk = :pk AND sk BETWEEN :low AND :high",
            ExpressionAttributeValues={
                ":pk": {"S": pk},
                ":low": {"S": between[0]},
                ":high": {"S": between[1]},
            },
            ConsistentRead=True,
            **options,
        )
        return reply["Items"], reply.get("LastEvaluatedKey")

    async def pages(self, pk: str, **options: Any) -> AsyncIterator[list[Item]]:
        """Yield all items of a partition, page by page."""
        items, start = await self.query(pk, **options)
        yield items
        while start is not None:
            items, start = await self.query(pk, start=start, **options)
            yield items

    async def transact(self, first: Action, *others: Action) -> None:
        """Carry out all actions or none. Only the first may have a condition.

        Raises:
            ConditionFailed: the condition failed.
            ValueError: an item would become too large.
        """
        actions = [{kind: {"TableName": self.name} | body} for kind, body in (first, *others)]
        actions[0][first[0]]["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        try:
            await self.client.call("transact_write_items", TransactItems=actions)
        except DynamoDBError as error:
            if error.condition_failed:
                raise ConditionFailed(error.item) from None
            if error.too_large:
                raise ValueError(
                    "What is to be stored is too large. DynamoDB takes at most 400 KB for the state of"
                    " a session, of a user or of an app, and 4 MB in one step: keep large values as"
                    " artifacts."
                ) from None
            raise

    async def put(self, item: Item, condition: dict[str, Any]) -> bool:
        """Write an item if the condition is true. Return whether it was."""
        try:
            await self.client.call("put_item", TableName=self.name, Item=item, **condition)
        except DynamoDBError as error:
            if not error.condition_failed:
                raise
            return False
        return True

    async def delete(self, key: Item, condition: dict[str, Any]) -> bool:
        """Delete an item if the condition is true. Return whether it was."""
        try:
            await self.client.call("delete_item", TableName=self.name, Key=key, **condition)
        except DynamoDBError as error:
            if not error.condition_failed:
                raise
            return False
        return True

    async def delete_many(self, keys: Sequence[Item]) -> None:
        """Delete items. A missing one is no error."""
        requests = [{"DeleteRequest": {"Key": key}} for key in keys]
        await self._in_batches("batch_write_item", _split(requests, WRITE_BATCH))

    async def _in_batches(self, operation: str, requests: Sequence[Any]) -> list[Any]:
        replies: list[Any] = []
        for some in _split(requests, CONCURRENT_BATCHES):
            calls = [self.client.call_batch(operation, {self.name: request}) for request in some]
            for finished in await asyncio.gather(*calls):
                replies += finished
        return replies


def _split(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
