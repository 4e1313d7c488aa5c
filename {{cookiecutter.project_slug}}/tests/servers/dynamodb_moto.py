"""Moto's server as a process: `python dynamodb_moto.py PORT FILE`.

At SIGTERM, it saves its tables to the file for the next process.
"""

import logging
import pickle
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from copy import copy
from pathlib import Path
from threading import Lock
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT  # type: ignore[attr-defined]
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.table import Table
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


def main(port: int, file: Path) -> None:
    """Serve DynamoDB on a port of 127.0.0.1."""
    sys.setrecursionlimit(20_000)  # Moto parses an update of hundreds of keys recursively.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # keeps connections open
    Table.__deepcopy__ = _copied  # type: ignore[attr-defined]
    tables = dynamodb_backends[ACCOUNT]["us-east-1"].tables
    if file.exists():
        tables.update(pickle.loads(file.read_bytes()))  # noqa: S301
    app, lock = create_backend_app("dynamodb"), Lock()

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        with lock:  # Moto is not atomic with several threads.
            return app(environ, start_response)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with suppress(SystemExit):
        make_server("127.0.0.1", port, answer, threaded=True).serve_forever()
    with lock:
        file.with_suffix(".new").write_bytes(pickle.dumps(tables))
    file.with_suffix(".new").replace(file)


def _copied(table: Table, _: object) -> Table:
    """Copy only what a transaction can change: the items.

    Moto makes a deep copy of the table before every transaction, which would take most of the time of
    the tests.
    """
    copied = copy(table)
    copied.items = copy(table.items)
    for partition, items in table.items.items():
        copied.items[partition] = {name: _copied_item(item) for name, item in items.items()}
    return copied


def _copied_item(item: Any) -> Any:
    copied = copy(item)
    copied.attrs = type(item.attrs)()
    dict.update(copied.attrs, item.attrs)
    return copied


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
