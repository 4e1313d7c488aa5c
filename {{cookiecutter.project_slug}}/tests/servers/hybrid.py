"""A PostgreSQL server for the record and a Valkey server for the copies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from . import postgres, redis

IMPATIENT = postgres.IMPATIENT
"""Options of a session URI for a client that gives up soon."""


@contextmanager
def serve(directory: Path, scheme: str, **more: object) -> Iterator[str]:
    """Run both, PostgreSQL with its data in the directory. `more` are settings of PostgreSQL."""
    with (
        postgres.serve(directory, scheme, **more) as record,
        redis.serve(directory, "redis", appendonly="no") as cache,
    ):
        yield f"{record}?cache={cache}"


@contextmanager
def namespace(uri: str, scheme: str) -> Iterator[str]:
    """Return a URI with a namespace of its own on both servers."""
    record, cache, options = split(uri)
    with (
        postgres.namespace(record, scheme) as own_record,
        redis.namespace(cache, "redis") as own_cache,
    ):
        yield f"{own_record}&{urlencode({'cache': own_cache} | options)}"


def split(uri: str) -> tuple[str, str, dict[str, str]]:
    """Return the URI of PostgreSQL, that of Redis, and the other options of Redis."""
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    cache = {name: options.pop(name) for name in list(options) if name.startswith("cache")}
    record = parts._replace(query=urlencode(options)).geturl()
    return record, cache.pop("cache"), cache
