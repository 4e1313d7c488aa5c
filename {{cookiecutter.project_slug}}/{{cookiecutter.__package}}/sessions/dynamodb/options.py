"""The session URI of a DynamoDB table."""

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from ..flags import boolean
from ..uri import SessionURI, positive


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of a session URI. With None, the SDK decides."""

    table: str
    prefix: str
    """The prefix of the keys of all items."""
    access_key: str | None
    secret_key: str | None = field(repr=False)
    region: str | None
    endpoint_url: str | None
    profile: str | None
    create_table: bool
    timeout: float
    """Seconds for a connection and for a reply. A call with its retries takes at most twice that."""
    max_connections: int

    @property
    def location(self) -> str:
        """Table and prefix, and the endpoint or region that the URI names."""
        name = self.table if self.prefix == DEFAULT_PREFIX else f"{self.table}/{self.prefix}"
        place = self.region
        if self.endpoint_url:
            place = urlsplit(self.endpoint_url).netloc.rpartition("@")[2]
        return f"{name} ({place})" if place else name


DEFAULT_PREFIX = "sessions"


def parse_options(uri: SessionURI) -> Options:
    """Parse `scheme://table[/prefix]?region=…`.

    Raises:
        ConfigurationError: the URI cannot work.
    """
    table, prefix = uri.hosts, uri.path.strip("/") or DEFAULT_PREFIX
    if not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", table):
        raise ConfigurationError(
            f"{table!r} is not the name of a DynamoDB table: write {uri.scheme}://table, with 3 to 255"
            " letters, digits, '_', '-' and '.'."
        )
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", prefix):
        raise ConfigurationError(
            f"The prefix {prefix!r} in the session URI is not valid: use at most 100 letters, digits,"
            " '_', '-' and '.'."
        )
    if (uri.username is None) != (uri.password is None):
        raise ConfigurationError(
            "The session URI has only half of the credentials: write key:secret@table, or leave them"
            " to the SDK."
        )
    take = uri.options.take
    return Options(
        table,
        prefix,
        uri.username,
        uri.password,
        region=take("region", str, None),
        endpoint_url=take("endpoint_url", _endpoint, None),
        profile=take("profile", str, None),
        create_table=take("create_table", boolean, False),
        timeout=take("timeout", positive, 5.0),
        max_connections=take("max_connections", int, 64),
    )


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("write http://host:port or https://host")
    return url
