"""Session URIs: `scheme://[user:password@]host[:port]/path?option=value`.

The options in the query are our own (`ttl`, `cache_mb`), the store's, and the driver's. Whoever reads
an option takes it out, and what nobody took is an error that lists the known ones.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from .errors import ConfigurationError

T = TypeVar("T")


class Options:
    """The options of one URI, each taken out by the one who understands it."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)
        self._known: set[str] = set()

    def take(self, name: str, convert: Callable[[str], T], default: T) -> T:
        """Return the option converted, or the default where the URI does not name it."""
        self._known.add(name)
        if name not in self._values:
            return default
        text = self._values.pop(name)
        try:
            return convert(text)
        except ConfigurationError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(f"Option {name}={text!r} is not valid: {error}.") from None

    def take_for_driver(self, names: Iterable[str]) -> dict[str, str]:
        """Return, unconverted, those options that the driver knows by these names."""
        known = set(names)
        self._known |= known
        return {name: self._values.pop(name) for name in known & self._values.keys()}

    def finish(self) -> None:
        """Refuse what nobody took."""
        if self._values:
            unknown = ", ".join(sorted(self._values))
            known = ", ".join(sorted(self._known))
            raise ConfigurationError(
                f"Unknown option in the session URI: {unknown}; the known ones are {known}."
            )


@dataclass(frozen=True, slots=True)
class SessionURI:
    """A session URI taken apart. Never print it: `location` is the part that may be shown."""

    scheme: str
    variant: str
    """What the scheme has beyond the project's own, such as `s` for TLS; often empty."""
    username: str | None
    password: str | None = field(repr=False)
    hosts: str
    """Everything between the credentials and the path, as written: `host:port`, or several."""
    path: str
    """The path with its leading slash, percent-decoded."""
    options: Options = field(repr=False)

    @property
    def location(self) -> str:
        """Where the data is, without credentials and options."""
        return f"{self.hosts}{self.path}"


def parse_uri(
    text: str, *, scheme: str, schemes: Iterable[str], options: Mapping[str, object]
) -> SessionURI:
    """Take a session URI apart; keyword options win over those of its query.

    Raises:
        ConfigurationError: it is not a URI of one of these schemes. No message shows a password.
    """
    known = tuple(schemes)
    try:
        parts = urlsplit(text)
        username = None if parts.username is None else unquote(parts.username)
        password = None if parts.password is None else unquote(parts.password)
    except ValueError as error:
        raise ConfigurationError(f"The session URI cannot be parsed: {error}.") from None
    if parts.scheme not in known:
        spelled = ", ".join(f"{name}://" for name in known)
        raise ConfigurationError(
            f"The session URI starts with {parts.scheme or 'no scheme'!r}; this project knows {spelled}."
        )
    if parts.fragment:
        raise ConfigurationError(
            "The session URI has a '#': write it as %23 where it belongs to a name or a password."
        )
    query: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
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
        hosts=parts.netloc.rpartition("@")[2],
        path=unquote(parts.path),
        options=Options(query),
    )


def boolean(text: str) -> bool:
    """Convert `true`, `yes`, `on`, `1` and their opposites."""
    lowered = text.lower()
    if lowered in {"true", "yes", "on", "1"}:
        return True
    if lowered in {"false", "no", "off", "0"}:
        return False
    raise ValueError("write true or false")


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
