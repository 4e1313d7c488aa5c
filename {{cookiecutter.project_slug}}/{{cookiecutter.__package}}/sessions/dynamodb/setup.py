"""Checks and creates the table."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import ConfigurationError, StoreUnavailable
from .client import Backoff
from .errors import NO_TABLE, DynamoDBError
from .keys import item
from .table import ConditionFailed, Table

LAYOUT_VERSION = 1
"""The layout of a table without a version item."""
CREATED_WITHIN = 60.0
"""Seconds to wait for a new table."""


async def check_table(table: Table) -> None:
    """Check that the table exists with a known layout. If `create_table` is set, create it.

    Raises:
        ConfigurationError: a newer version wrote it.
        DynamoDBError: the table does not exist, or has other keys.
    """
    options = table.client.options
    try:
        found = await table.get_one(item(f"{options.prefix}/schema", "version"))
    except DynamoDBError as error:
        if error.code != NO_TABLE or not options.create_table:
            raise
        await create_table(table)
        return
    version = int(found["number"]["N"]) if found else LAYOUT_VERSION
    if version > LAYOUT_VERSION:
        raise ConfigurationError(
            f"DynamoDB table {options.location} was written by a newer version of this program (layout"
            f" {version}, this one knows {LAYOUT_VERSION}): upgrade the program, or name another table."
        )


async def is_missing(table: Table) -> bool:
    """Return whether there is no table yet and the URI has `create_table=true`."""
    options = table.client.options
    if options.create_table:
        try:
            await table.get_one(item(f"{options.prefix}/schema", "version"))
        except DynamoDBError as error:
            if error.code == NO_TABLE:
                return True
            raise
    return False


async def create_table(table: Table) -> None:
    """Create the table if it does not exist, billed by use, with `purge_at` as its TTL attribute."""
    call, name = table.client.call, table.name
    keys = {"pk": "HASH", "sk": "RANGE"}
    with _ignoring("ResourceInUseException"):
        await call(
            "create_table",
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
            KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in keys.items()],
        )
    backoff = Backoff(CREATED_WITHIN)
    while (await call("describe_table", TableName=name))["Table"]["TableStatus"] == "CREATING":
        if not await backoff.pause():
            raise StoreUnavailable(f"DynamoDB is still creating the table {name}; try again later.")
    reply = await call("describe_time_to_live", TableName=name)
    if reply["TimeToLiveDescription"]["TimeToLiveStatus"] == "DISABLED":
        with _ignoring("ValidationException"):  # another process has just enabled it
            await call(
                "update_time_to_live",
                TableName=name,
                TimeToLiveSpecification={"Enabled": True, "AttributeName": "purge_at"},
            )


async def check_permissions(table: Table) -> None:
    """Try every kind of call on items that never exist, to find missing permissions."""
    put, update, delete = (item("permissions", kind) for kind in ("put", "update", "delete"))
    never = {"ConditionExpression": "attribute_exists(pk)"}

    async def write() -> None:
        with suppress(ConditionFailed):
            await table.transact(
                ("Put", {"Item": put} | never),
                ("Update", {"Key": update, "UpdateExpression": "REMOVE a"} | never),
                ("Delete", {"Key": delete} | never),
            )

    await asyncio.gather(
        write(),
        table.get_many([put]),
        table.query("permissions", Limit=1),
        table.delete_many([put]),
    )


@contextmanager
def _ignoring(code: str) -> Iterator[None]:
    try:
        yield
    except DynamoDBError as error:
        if error.code != code:
            raise
