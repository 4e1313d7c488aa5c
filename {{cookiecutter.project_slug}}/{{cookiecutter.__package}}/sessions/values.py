"""State values to JSON and back, without losing what JSON has no word for.

JSON covers what most agents keep in their state. `InMemorySessionService` hands back whatever was put
in, so bytes, dates, tuples, sets, decimals and numbers like infinity come back here too: they travel
as `{"$type": name, "value": …}`, and a dictionary of the caller's that looks like one is itself wrapped.
Nothing is ever unpickled or evaluated. What is none of these (an open file, a lock) is kept as its
`repr` and a warning, as ADK's own database services do.
"""

import base64
import datetime as dt
import logging
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

logger = logging.getLogger(__name__)

TAG = "$type"

_TO_TEXT: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
    dt.datetime: ("datetime", dt.datetime.isoformat),
    dt.date: ("date", dt.date.isoformat),
    dt.time: ("time", dt.time.isoformat),
    dt.timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("decimal", str),
    UUID: ("uuid", str),
    complex: ("complex", lambda value: [repr(value.real), repr(value.imag)]),
}
_FROM_TEXT: dict[str, Callable[[Any], Any]] = {
    "bytes": base64.b64decode,
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "timedelta": lambda value: dt.timedelta(*value),
    "decimal": Decimal,
    "uuid": UUID,
    "complex": lambda value: complex(float(value[0]), float(value[1])),
    "float": float,
    "text": lambda value: base64.b64decode(value).decode("utf-8", "surrogatepass"),
    "tuple": lambda value: tuple(map(from_plain, value)),
    "set": lambda value: set(map(from_plain, value)),
    "frozenset": lambda value: frozenset(map(from_plain, value)),
    "dict": lambda value: {from_plain(key): from_plain(item) for key, item in value},
}


def to_plain(value: Any) -> Any:
    """Return the value as JSON data, tagged where JSON has no word for it.

    Raises:
        ValueError: the value contains itself, or is nested too deeply.
    """
    try:
        return _to_plain(value)
    except RecursionError:
        raise ValueError("it contains itself, or is nested too deeply") from None


def _to_plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return value
    if kind is str:
        return value if _encodable(value) else _tagged("text", _surrogates(value))
    if kind is float:
        return value if math.isfinite(value) else _tagged("float", repr(value))
    if kind is dict:
        if TAG not in value and all(type(key) is str and _encodable(key) for key in value):
            return {key: _to_plain(item) for key, item in value.items()}
        return _tagged("dict", [[_to_plain(key), _to_plain(item)] for key, item in value.items()])
    if kind is list:
        return [_to_plain(item) for item in value]
    if kind in (tuple, set, frozenset):
        return _tagged(kind.__name__, [_to_plain(item) for item in value])
    if kind in _TO_TEXT:
        name, convert = _TO_TEXT[kind]
        return _tagged(name, convert(value))
    return _to_plain(_jsonable(value))


def _jsonable(value: Any) -> Any:
    """Convert what is neither JSON nor tagged: models, dataclasses, enumerations, subclasses."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True, fallback=repr)
    try:
        return to_jsonable_python(value, bytes_mode="base64")
    except Exception:
        logger.warning(
            "A state value of type %s cannot be stored; its repr is stored instead.",
            type(value).__qualname__,
        )
        return repr(value)


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


def _tagged(name: str, value: Any) -> dict[str, Any]:
    return {TAG: name, "value": value}


def _encodable(text: str) -> bool:
    """Whether the text is valid Unicode: half a surrogate pair cannot be written as UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _surrogates(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()
