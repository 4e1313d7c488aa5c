"""Moto as a process: `python dynamodb_moto.py FILE` prints its port, and serves until its input ends.

Then it keeps its tables in the file, for whoever serves them next.

What it answers is moto's. Thousands of calls add up: so its connections stay open, which those of moto's
own server do not, its handlers are called without Flask, and it is made quicker in a few places.
"""

import asyncio
import pickle
import sys
from copy import copy
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from aiohttp import web
from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT  # type: ignore[attr-defined]
from moto.core import responses as core
from moto.core.request import Request
from moto.core.serialize import ResponseSerializer
from moto.core.utils import method_names_from_class
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler


class Asked(Request):
    """A request that has come from another process."""

    from_wsgi_server = True


async def main(file: Path) -> None:
    """Serve DynamoDB on a free port, one request after the other: moto does not lock its data."""
    _make_transactions_quick()
    _make_queries_quick()
    _make_answers_quick()
    sys.setrecursionlimit(20_000)  # moto reads an update of some hundred keys by recursion
    tables = dynamodb_backends[ACCOUNT]["us-east-1"].tables
    if file.exists():
        tables.update(pickle.loads(file.read_bytes()))  # noqa: S301
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/", _answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    file.with_suffix(".new").write_bytes(pickle.dumps(tables))
    file.with_suffix(".new").replace(file)


async def _answer(asked: web.Request) -> web.Response:
    body = await asked.read()
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": asked.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
        **{f"HTTP_{name.upper().replace('-', '_')}": text for name, text in asked.headers.items()},
    }
    request = Asked(environ)
    status, headers, said = DynamoHandler.dispatch(request, request.raw_url, dict(request.headers))
    content = said if isinstance(said, bytes) else said.encode()
    told = {name: str(value) for name, value in headers.items() if name != "status"}
    return web.Response(status=status, headers=told, body=content)


def _make_transactions_quick() -> None:
    """Let a transaction keep what it touches, where moto copies all that is in the table.

    What moto would put back when a transaction fails is then the table itself, and the items that
    were touched are put back into it here.
    """
    transact = DynamoDBBackend.transact_write_items
    Table.__deepcopy__ = lambda table, memo: table  # type: ignore[attr-defined]

    def transact_and_restore(
        backend: DynamoDBBackend, transact_items: list[dict[str, Any]]
    ) -> None:
        before = []
        for action in (body for item in transact_items for body in item.values()):
            table, key = (
                backend.tables.get(action["TableName"]),
                action.get("Key") or action["Item"],
            )
            if table and {"pk", "sk"} <= key.keys():
                items = table.items[DynamoType(key["pk"])]
                place = DynamoType(key["sk"])
                before.append((items, place, _copied(items.get(place))))
        try:
            transact(backend, transact_items)
        except Exception:
            for items, place, found in before:
                items.pop(place, None)
                if found is not None:
                    items[place] = found
            raise

    DynamoDBBackend.transact_write_items = transact_and_restore  # type: ignore[assignment, method-assign]


def _make_queries_quick() -> None:
    """Look into the partition that is asked for, where moto sorts and goes through the whole table."""
    query = Table.query

    def query_partition(table: Table, hash_key: DynamoType, *rest: Any, **more: Any) -> Any:
        partition = [*table.items.get(hash_key, {}).values()]
        table.all_items = lambda: partition  # type: ignore[method-assign]
        try:
            return query(table, hash_key, *rest, **more)
        finally:
            del table.all_items

    def cast(value: DynamoType) -> Any:
        return value.value if value.type in ("S", "B") else cast_value.__get__(value)

    cast_value: Any = vars(DynamoType)["cast_value"]
    DynamoType.cast_value = property(cast)  # type: ignore[assignment, method-assign]
    Table.query = query_partition  # type: ignore[assignment, method-assign]


def _make_answers_quick() -> None:
    """Look into a dictionary for a name as it is spelled, where moto tries four other spellings too.

    And find out once what there is to call.
    """
    vars(core)["method_names_from_class"] = cache(method_names_from_class)
    look_up = ResponseSerializer.get_value

    def look(serializer: ResponseSerializer, value: Any, key: str, shape: Any) -> Any:
        return value.get(key) if type(value) is dict else look_up(serializer, value, key, shape)

    ResponseSerializer.get_value = look  # type: ignore[assignment, method-assign]


def _copied(item: Any) -> Any:
    """Return an item of its own: moto changes which attributes one has, and no attribute."""
    if item is None:
        return None
    copied = copy(item)
    copied.attrs = type(item.attrs)()
    dict.update(copied.attrs, item.attrs)
    return copied


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
