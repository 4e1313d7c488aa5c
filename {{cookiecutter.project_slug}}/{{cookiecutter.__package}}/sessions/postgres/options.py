"""The options of a session URI for PostgreSQL."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from ..uri import SessionURI, positive

DRIVER_OPTIONS = (
    *("host", "port", "dbname", "database", "user", "password", "passfile", "service"),
    *("sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs"),
    *("krbsrvname", "gsslib", "application_name", "options"),
)
"""asyncpg's options of a URI. It passes the last two on to the server."""


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """The options of a store."""

    connect: dict[str, Any] = field(repr=False)
    """The arguments of `asyncpg.connect`, including the password."""
    location: str
    """Hosts and database, for people."""
    schema: str
    """The schema of the tables."""
    max_connections: int
    """Connections of one event loop at most."""
    timeout: float
    """Seconds that one call may take, including the wait for a connection."""
    prepared: bool
    """Whether the server keeps prepared statements."""


def postgres_options(uri: SessionURI) -> PostgresOptions:
    """Take the options of this store and of asyncpg out of a session URI.

    Raises:
        ConfigurationError: an option has a value that cannot work.
    """
    take = uri.options.take
    schema = take("schema", _schema, "sessions")
    timeout = take("timeout", positive, 5.0)
    max_connections = take("max_connections", _at_least_one, 10)
    prepared = take("statement_cache_size", int, 100) != 0
    given = {name: take(name, str, "") for name in DRIVER_OPTIONS}
    driver = {name: text for name, text in given.items() if text}
    if "," in uri.hosts + driver.get("host", ""):
        driver.setdefault("target_session_attrs", "read-write")
    connect = {
        "dsn": f"postgresql://{uri.hosts}?{urlencode(driver)}",
        "user": uri.username,
        "password": uri.password,
        "database": uri.path[1:] or None,
        "timeout": timeout,
        "statement_cache_size": 0,  # `Connection` keeps the statements
    }
    hosts = uri.hosts or driver.get("host") or driver.get("service") or "the default host"
    database = uri.path[1:] or driver.get("dbname") or driver.get("database")
    location = f"{hosts}/{database}" if database else hosts
    return PostgresOptions(connect, location, schema, max_connections, timeout, prepared)


def _schema(text: str) -> str:
    if not text or "\0" in text or len(text.encode()) > 63:
        raise ValueError("write a name of 1 to 63 bytes")
    return text


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError("write a number above 0")
    return number
