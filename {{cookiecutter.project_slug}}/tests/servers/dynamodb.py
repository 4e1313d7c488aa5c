"""Moto from PyPI: an emulator of DynamoDB, with its data in memory while it runs, in a process of its own.

It keeps conditions and transactions, but never refuses a transaction because of another one, and does
not know the tokens by which DynamoDB recognises a repeated call: `test_dynamodb.py` plays those parts.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import botocore.session

SERVER = Path(__file__).with_name("dynamodb_moto.py")
TABLE = "sessions"
OPTIONS = "region=us-east-1&create_table=true"

IMPATIENT = "timeout=2"
"""Options of a session URI for clients that wait for nothing long."""
EFFORT = 0.1
"""Moto takes some milliseconds for a call."""


@contextmanager
def serve(directory: Path, scheme: str) -> Iterator[str]:
    """Run an emulator, which keeps its tables in the directory when it is told to end.

    Its credentials are anybody's.
    """
    with (directory / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, SERVER, directory / "moto.tables"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is not for the server
        )
    assert server.stdin is not None
    assert server.stdout is not None
    with server, server.stdin:
        port = server.stdout.readline().decode().strip()
        if not port:
            raise RuntimeError("The test server did not start; see moto.log.")
        endpoint = f"http://127.0.0.1:{port}"
        yield f"{scheme}://agent:agent@{TABLE}?{OPTIONS}&endpoint_url={endpoint}"


@contextmanager
def namespace(uri: str, scheme: str) -> Iterator[str]:
    """Give all items a prefix of their own, and delete what is found under it in the end."""
    prefix = f"test-{token_hex(8)}"
    yield urlsplit(uri)._replace(path=f"/{prefix}").geturl()
    table, sdk = urlsplit(uri).netloc.rpartition("@")[2], client(uri)
    found = {
        "ProjectionExpression": "pk, sk",
        "FilterExpression": "begins_with(pk, :prefix)",
        "ExpressionAttributeValues": {":prefix": {"S": f"{prefix}/"}},
    }
    tables = sdk.get_paginator("list_tables").paginate().search("TableNames")
    if table in tables:
        for page in sdk.get_paginator("scan").paginate(TableName=table, **found):
            requests = [{"DeleteRequest": {"Key": key}} for key in page["Items"]]
            for start in range(0, len(requests), 25):
                left = {table: requests[start : start + 25]}
                while left:
                    left = sdk.batch_write_item(RequestItems=left).get("UnprocessedItems")


def client(uri: str) -> Any:
    """Return a client of the SDK for the server of a session URI."""
    if uri not in _clients:
        parts, query = urlsplit(uri), dict(parse_qsl(urlsplit(uri).query))
        session = botocore.session.Session(profile=query.get("profile"))
        _clients[uri] = session.create_client(
            "dynamodb",
            region_name=query.get("region"),
            endpoint_url=query.get("endpoint_url"),
            aws_access_key_id=parts.username,
            aws_secret_access_key=parts.password,
        )
    return _clients[uri]


_clients: dict[str, Any] = {}
