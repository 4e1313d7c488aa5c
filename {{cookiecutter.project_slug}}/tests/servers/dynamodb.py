"""Moto from PyPI: an emulator of DynamoDB in its own process, with its data in memory.

It supports conditions and transactions. It never refuses a transaction because of another one, never
throttles, and ignores the tokens by which DynamoDB recognises a repeated call.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import botocore.session
from botocore.config import Config

from .starting import free_port, knock, run

SERVER = str(Path(__file__).with_name("dynamodb_moto.py"))
TABLE = "sessions"
OPTIONS = "region=us-east-1&create_table=true"

IMPATIENT = "timeout=2"
"""Options of a session URI for a client that gives up soon."""
EFFORT = 0.1
"""Moto takes some milliseconds for a call."""


@contextmanager
def serve(directory: Path, scheme: str) -> Iterator[str]:
    """Run an emulator that accepts any credentials. It saves its tables to the directory at its end."""
    port = free_port()
    command = [sys.executable, SERVER, str(port), str(directory / "moto.tables")]
    with run(command, lambda: knock(port), (OSError,), directory / "moto.log"):
        endpoint = f"http://127.0.0.1:{port}"
        yield f"{scheme}://agent:agent@{TABLE}?{OPTIONS}&endpoint_url={endpoint}"


@contextmanager
def namespace(uri: str, scheme: str) -> Iterator[str]:
    """Return a URI with its own prefix of all items, and delete them in the end."""
    prefix = f"test-{token_hex(8)}"
    own = urlsplit(uri)._replace(path=f"/{prefix}").geturl()
    yield own
    sdk, table = client(uri), table_name(uri)
    if table in sdk.get_paginator("list_tables").paginate().search("TableNames"):
        requests = [
            {"DeleteRequest": {"Key": {"pk": item["pk"], "sk": item["sk"]}}}
            for item in stored_items(own).values()
        ]
        for start in range(0, len(requests), 25):
            left = {table: requests[start : start + 25]}
            while left:
                left = sdk.batch_write_item(RequestItems=left).get("UnprocessedItems")


def stored_items(uri: str) -> dict[tuple[str, str], Any]:
    """Return all items of a URI by their keys, with `pk` lacking the prefix."""
    prefix = f"{urlsplit(uri).path.strip('/')}/"
    pages = (
        client(uri)
        .get_paginator("scan")
        .paginate(
            TableName=table_name(uri),
            ConsistentRead=True,
            FilterExpression="begins_with(pk, :prefix)",
            ExpressionAttributeValues={":prefix": {"S": prefix}},
        )
    )
    found = [item for page in pages for item in page["Items"]]
    return {(item["pk"]["S"].removeprefix(prefix), item["sk"]["S"]): item for item in found}


def table_name(uri: str) -> str:
    """Return the table that a session URI names."""
    return urlsplit(uri).netloc.rpartition("@")[2]


def options_of(uri: str) -> dict[str, str]:
    """Return the options of a session URI."""
    return dict(parse_qsl(urlsplit(uri).query))


def with_options(uri: str, **changed: object) -> str:
    """Return a session URI with these options changed. None removes one."""
    options = {
        name: value for name, value in (options_of(uri) | changed).items() if value is not None
    }
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return urlsplit(uri)._replace(query=query).geturl()


def client(uri: str) -> Any:
    """Return an SDK client for the server of a session URI."""
    parts, options = urlsplit(uri), options_of(uri)
    names = ("region", "endpoint_url", "profile")
    return _client(parts.username, parts.password, *(options.get(name) for name in names))


@cache  # creating one takes 0.1 s
def _client(
    key: str | None,
    secret: str | None,
    region: str | None,
    endpoint: str | None,
    profile: str | None,
) -> Any:
    return botocore.session.Session(profile=profile).create_client(
        "dynamodb",
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(proxies={} if endpoint else None),
    )
