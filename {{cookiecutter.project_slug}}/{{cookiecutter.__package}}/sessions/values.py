"""State values to JSON and back, without losing what JSON has no word for.

JSON covers what most agents keep in their state. `InMemorySessionService` hands back whatever was put
in, so bytes, dates, tuples, sets, decimals and numbers like infinity come back here too: they are stored
as `{"$type": name, "value": …}`, and so is a dictionary that has a key `$type`, or one that is no text.
Nothing is ever unpickled or evaluated.

A value comes back equal, or it is refused. The exceptions come back as something simpler:

- A pydantic model and a dataclass as a dictionary of their fields, from which they can be validated
  again; the member of an enumeration as its value.
- Other subclasses as the type that they are derived from: a named tuple as a tuple.
- A time in a named zone with the zone's offset.
- Half a surrogate pair, which is no character and cannot be written as UTF-8, as `�`.
- What is none of these (a path, an open file) as pydantic's JSON of it, or else as its `repr`, with a
  warning, as in ADK's own database services.

What is accepted can be read, because the types are a closed set, and because nesting and integers have
limits far below those of the readers: pydantic reads 200 levels of JSON and writes 255, Python recurses
1,000 times, and both read integers of 4,300 digits.
"""

import base64
import dataclasses
import datetime as dt
import logging
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import SchemaSerializer, core_schema, to_json, to_jsonable_python

logger = logging.getLogger(__name__)

TAG = "$type"

MAX_DEPTH = 50
"""Levels of containers in a value. Each takes up to three levels of JSON."""
MAX_INTEGER = 10**4_000
"""The first integer that has too many digits."""


class Bytes(bytes):
    """Bytes that were read from a store. To JSON, pydantic writes them as base64.

    Other bytes it decodes as UTF-8, which fails for most. ADK's HTTP API would answer every request for a
    session that has such a value with an error.
    """

    __pydantic_serializer__: ClassVar[SchemaSerializer] = SchemaSerializer(
        core_schema.bytes_schema(), core_schema.CoreConfig(ser_json_bytes="base64")
    )


_BYTES = ("bytes", lambda value: base64.b64encode(value).decode())
_TO_TEXT: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: _BYTES,
    Bytes: _BYTES,
    dt.datetime: ("datetime", lambda value: _iso_text(value)),
    dt.date: ("date", dt.date.isoformat),
    dt.time: ("time", lambda value: _iso_text(value)),
    dt.timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("decimal", str),
    UUID: ("uuid", str),
    complex: ("complex", lambda value: [repr(value.real), repr(value.imag)]),
}
_FROM_TEXT: dict[str, Callable[[Any], Any]] = {
    "bytes": lambda value: Bytes(base64.b64decode(value, validate=True)),
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "timedelta": lambda value: dt.timedelta(*value),
    "decimal": Decimal,
    "uuid": UUID,
    "complex": lambda value: complex(float(value[0]), float(value[1])),
    "float": float,
    "text": lambda value: to_unicode(base64.b64decode(value).decode("utf-8", "surrogatepass")),
    "tuple": lambda value: tuple(map(from_plain, value)),
    "set": lambda value: set(map(from_plain, value)),
    "frozenset": lambda value: frozenset(map(from_plain, value)),
    "dict": lambda value: {from_plain(key): from_plain(item) for key, item in value},
}


def to_plain(value: Any, levels: int = MAX_DEPTH) -> Any:
    """Return the value as JSON data, tagged where JSON has no word for it.

    Args:
        levels: how many levels of containers it may have.

    Raises:
        ValueError: it is nested too deeply, or contains itself, or an integer is too large, or what
            it has for a dictionary's key or a set's element is refused. The text has no full stop.
    """
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return to_unicode(value)
    if kind is int:
        if not -MAX_INTEGER < value < MAX_INTEGER:
            raise ValueError("an integer in it has more than 4,000 digits")
        return value
    if kind is float:
        return value if math.isfinite(value) else _tagged("float", repr(value))
    if kind in _TO_TEXT:
        name, convert = _TO_TEXT[kind]
        return _tagged(name, convert(value))
    if not levels:
        raise ValueError("it is nested too deeply, or contains itself")
    levels -= 1
    if kind is dict:
        if TAG not in value and all(type(key) is str and is_unicode(key) for key in value):
            return {key: to_plain(item, levels) for key, item in value.items()}
        if not all(is_unicode(key) for key in value if isinstance(key, str)):
            raise ValueError("a key in it is not valid Unicode")
        keys = [to_plain(key, levels) for key in value]
        _check_hashed(keys, "as a key")
        items = [to_plain(item, levels) for item in value.values()]
        return _tagged("dict", list(map(list, zip(keys, items, strict=True))))
    if kind is list:
        return [to_plain(item, levels) for item in value]
    if kind is tuple:
        return _tagged("tuple", [to_plain(item, levels) for item in value])
    if kind is set or kind is frozenset:
        # In order, because the same set is the same bytes in every process.
        items = sorted((to_plain(item, levels) for item in value), key=to_json)
        _check_hashed(items, "in a set", "frozenset")
        return _tagged(kind.__name__, items)
    return to_plain(_simpler(value), levels)


def from_plain(value: Any) -> Any:
    """Return what `to_plain` was given.

    Raises:
        ValueError: a tag is unknown (written by a newer version) or its value does not fit it.
    """
    kind = type(value)
    if kind is dict:
        if TAG not in value:
            return {key: from_plain(item) for key, item in value.items()}
        try:
            return _FROM_TEXT[value[TAG]](value["value"])
        except (LookupError, AttributeError, TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"a value tagged {value[TAG]!r} cannot be read") from error
    if kind is list:
        return [from_plain(item) for item in value]
    return value


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8: half a surrogate pair cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def to_unicode(text: str) -> str:
    """Return the text with halves of surrogate pairs joined, or replaced by `�` where they are alone."""
    if is_unicode(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _iso_text(value: dt.datetime | dt.time) -> str:
    text = value.isoformat()
    if type(value).fromisoformat(text).isoformat() != text:
        raise ValueError(f"{text} has an offset that Python does not read")  # of less than a second
    return text


def _tagged(name: str, value: Any) -> dict[str, Any]:
    return {TAG: name, "value": value}


_BASES: tuple[type[Any], ...] = (str, int, float, bytes, dict, list, tuple, set, frozenset)


def _simpler(value: Any) -> Any:
    """Return what comes back of a value that is of none of the types that come back themselves."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True, warnings="none")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, bytearray):
        return bytes(value)
    for base in _BASES:
        if isinstance(value, base):
            return base(value)
    try:
        if isinstance(value, Iterator):  # it may be endless, and others want its items
            raise TypeError
        return to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="constants")
    except Exception:
        logger.warning(
            "A value of type %s cannot be stored; its repr is stored instead.",
            type(value).__qualname__,
        )
        return repr(value)


def _check_hashed(items: list[Any], where: str, *more: str) -> None:
    """Refuse plain values that could not be hashed when they are read, or of which two are the same.

    Args:
        more: tags that are welcome beside those of scalars and tuples.
    """
    for item in items:
        _check_hashable(item, where, ("tuple", *more))
    if len(set(map(to_json, items))) < len(items):
        raise ValueError(f"two values in it would be the same {where}")


def _check_hashable(plain: Any, where: str, containers: tuple[str, ...]) -> None:
    if isinstance(plain, list):
        raise ValueError(f"a list cannot be stored {where}")
    if isinstance(plain, dict):
        name = plain.get(TAG, "dict")
        if name in containers:
            for item in plain["value"]:
                _check_hashable(item, where, containers)
        elif name in ("dict", "set", "frozenset"):
            raise ValueError(f"a {name} cannot be stored {where}")
