"""Session URIs: `scheme://[user:password@]host[:port]/path?option=value`.

The service (`ttl`, `cache_mb`, …), the store and the driver take their options out of the query. Options that
are left are an error.

No message shows a password. In a password with an unescaped `/`, `?` or `#`, the beginning looks like a host
and the end like a path or an option, so these are checked before they are shown.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from .errors import ConfigurationError

T = TypeVar("T")

_HOSTS = re.compile(r"(([\w.%-]+|\[[\w:.%]+\])?(:[0-9]+)?(,|$))*", re.ASCII)
"""`host:port`, several of them separated by commas, or nothing. IPv6 addresses are in brackets."""
_OPTION = re.compile(r"[A-Za-z_]+")
_CREDENTIALS = re.compile(r"(:|%3A)[^/]*@", re.IGNORECASE)
_ESCAPE = (
    "in a user name or password write '/' as %2F, '?' as %3F, '#' as %23, ':' as %3A and '@' as %40"
)


class Options:
    """The options of a URI. Each reader takes out those that it knows."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)
        self._known: set[str] = set()

    def take(self, name: str, convert: Callable[[str], T], default: T) -> T:
        """Return the converted option, or the default if the URI does not have it."""
        self._known.add(name)
        if name not in self._values:
            return default
        text = self._values.pop(name)
        try:
            return convert(text)
        except (ValueError, TypeError, KeyError) as error:
            if "@" in text:  # it may hold a password
                raise ConfigurationError(f"Option {name} is not valid: it has an '@'.") from None
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"Option {name}={text!r} is not valid: {error}.") from None

    def finish(self) -> None:
        """Refuse the options that are left."""
        if self._values:
            unknown = ", ".join(sorted(self._values))
            known = ", ".join(sorted(self._known))
            raise ConfigurationError(
                f"Unknown option in the session URI: {unknown}; the known ones are {known}."
            )


@dataclass(frozen=True, slots=True)
class SessionURI:
    """The parts of a session URI. Only `location` may be shown."""

    scheme: str
    variant: str
    """The suffix of the scheme, such as `s` for TLS. Often empty."""
    username: str | None
    password: str | None = field(repr=False)
    hosts: str
    """The text between the credentials and the path: `host:port`, or several."""
    path: str
    """The path with its leading slash, percent-decoded."""
    options: Options = field(repr=False)

    @property
    def location(self) -> str:
        """Hosts and path, without credentials and options."""
        return f"{self.hosts}{self.path}"


def parse_uri(
    text: str, *, scheme: str, schemes: Iterable[str], options: Mapping[str, object]
) -> SessionURI:
    """Parse a session URI. Keyword options win over those of its query.

    Raises:
        ConfigurationError: it is not a URI of one of these schemes.
    """
    known = tuple(schemes)
    try:
        text.encode()
        parts = urlsplit(text)
        username = None if parts.username is None else unquote(parts.username)
        password = None if parts.password is None else unquote(parts.password)
    except ValueError:  # its text may contain a password
        raise ConfigurationError(f"The session URI cannot be parsed: {_ESCAPE}.") from None
    if parts.scheme not in known:
        what = f"an unknown scheme {parts.scheme!r}" if parts.scheme else "no scheme"
        spelled = ", ".join(f"{name}://" for name in known)
        raise ConfigurationError(f"The session URI has {what}; this project knows {spelled}.")
    if not text[len(parts.scheme) :].startswith("://"):
        raise ConfigurationError(f"The session URI has to begin with {parts.scheme}://.")
    hosts = parts.netloc.rpartition("@")[2]
    in_path = "@" in parts.path and (parts.netloc or _CREDENTIALS.search(parts.path))
    # An option may be a URI with an '@' of its own.
    in_query = any("@" in each.partition("://")[0] for each in parts.query.split("&"))
    if parts.fragment or not _HOSTS.fullmatch(hosts) or in_path or in_query:
        raise ConfigurationError(
            f"The session URI has a '#', or its host is not a name with a port number: {_ESCAPE}."
        )
    query: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if not _OPTION.fullmatch(name):
            raise ConfigurationError(f"An option in the session URI has no name: {_ESCAPE}.")
        if name in query:
            raise ConfigurationError(f"The session URI names the option {name} twice.")
        query[name] = value
    for name, given in options.items():
        if given is not None:
            query[name] = str(given).lower() if isinstance(given, bool) else str(given)
    return SessionURI(
        scheme=parts.scheme,
        variant=parts.scheme.removeprefix(scheme),
        username=username or None,
        password=password,
        hosts=hosts,
        path=unquote(parts.path),
        options=Options(query),
    )


def positive(text: str) -> float:
    """Convert a number above zero."""
    number = float(text)
    if not 0 < number < 1e9:
        raise ValueError("write a number above 0")
    return number


def not_negative(text: str) -> float:
    """Convert a number that is zero or more."""
    number = float(text)
    if not 0 <= number < 1e9:
        raise ValueError("write 0 or a number above it")
    return number


def whole_number(text: str) -> int:
    """Convert a whole number that is zero or more."""
    if not (text.isdecimal() and len(text) < 10):
        raise ValueError("write a whole number, 0 or above")
    return int(text)
