"""Events and state values to bytes and back.

An event is stored as ADK's own JSON of it, without the fields that are None (a third of the size). Its
`state_delta` is tagged value by value like state (`values.py`), because JSON alone would lose types.
Where JSON would lose something in another field (a tuple in a tool's result, infinity in its arguments),
the event is stored as a list: the other fields, tagged, and the `state_delta`.

Whatever is accepted can be read again. Everything else is refused before anything is written. For state
this follows from how it is encoded. The fields of an event are not checked when they are assigned, so
an event is proved: what would be stored is decoded and compared with the event. That takes 45 µs, which
cannot be seen in a turn.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any

from google.adk.events.event import Event
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from .errors import CorruptSession, RefusedValue
from .keys import problem_of
from .values import MAX_DEPTH, TAG, from_plain, is_unicode, to_plain, to_unicode

SLICE_SECONDS = 0.002
"""For how long other tasks wait while many events are decoded or copied."""

_TAG_BYTES = to_json(TAG)
_MODELS_DEPTH = 10
"""Levels that the models of an event may add to those of a value in it."""
_FEW_BRACKETS = 150
"""JSON with so few cannot be nested too deeply for a reader: pydantic's takes 200 levels, and a session adds 2."""


def encode_event(event: Event, delta: Mapping[str, Any]) -> bytes:
    """Return the bytes of an event.

    Halves of surrogate pairs are replaced in the event itself, too, so that others can write it.

    Args:
        delta: the event's `state_delta` without what is not stored.

    Raises:
        RefusedValue: a value of the delta or of another field cannot be stored. The message names it.
    """
    if not (isinstance(event.timestamp, (int, float)) and abs(event.timestamp) < inf):
        raise RefusedValue("Event field 'timestamp' cannot be stored: it is not a finite number.")
    plain = {key: _plain_value(key, value) for key, value in delta.items()}
    event.actions.state_delta.update({key: _repair_text(each) for key, each in delta.items()})
    data = _proven_json(event, plain)
    if data and data.count(b"[") + data.count(b"{") <= _FEW_BRACKETS:
        return data
    fields = _plain_fields(_with_delta(event, {}))
    if data:
        return data
    _repair_fields(event)
    data = to_json([fields, plain])
    _prove(data, fields)
    return data


def decode_event(data: bytes) -> Event:
    """Return the event that `encode_event` was given.

    Raises:
        CorruptSession: the bytes are not an event that this version of ADK can read.
    """
    try:
        return _read(_in_clear(data))
    except Exception as error:  # ADK's validators raise more than ValueError
        raise CorruptSession(f"a stored event cannot be read ({_reason(error)})") from error


async def decode_events(encoded: Sequence[bytes]) -> list[Event]:
    """Return events decoded, in slices between which other tasks run.

    Raises:
        CorruptSession: one of them cannot be read.
    """
    events: list[Event] = []
    pause = time.perf_counter() + SLICE_SECONDS
    for data in encoded:
        events.append(decode_event(data))
        if time.perf_counter() > pause:
            await asyncio.sleep(0)
            pause = time.perf_counter() + SLICE_SECONDS
    return events


def encode_state(state: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the state with each value encoded.

    Raises:
        RefusedValue: a value cannot be stored, or a key is not valid Unicode. The message names the key.
    """
    return {key: to_json(_plain_value(key, value)) for key, value in state.items()}


def decode_state(state: Mapping[str, bytes], *, prefix: str = "") -> dict[str, Any]:
    """Return the state with each value decoded, its keys with the prefix of their scope.

    Raises:
        CorruptSession: a value cannot be read. The message names its key.
    """
    decoded = {}
    for key, data in state.items():
        try:
            value = from_json(_in_clear(data))
            decoded[prefix + key] = from_plain(value) if _TAG_BYTES in data else value
        except Exception as error:
            problem = f"the stored value of state key {prefix + key!r} cannot be read"
            raise CorruptSession(f"{problem} ({_reason(error)})") from error
    return decoded


def _in_clear(data: bytes) -> bytes:
    if problem := problem_of(data):
        raise ValueError(problem)
    return data


def _read(data: bytes) -> Event:
    if data.startswith(b"["):
        fields, delta = from_json(data)
        event = Event.model_validate(from_plain(fields))
    else:
        event = Event.model_validate_json(data)
        if _TAG_BYTES not in data:
            return event
        delta = event.actions.state_delta
    event.actions.state_delta = {key: from_plain(value) for key, value in delta.items()}
    return event


def _with_delta(event: Event, delta: dict[str, Any]) -> Event:
    actions = event.actions.model_copy(update={"state_delta": delta})
    return event.model_copy(update={"actions": actions})


def _adk_json(event: Event) -> bytes:
    return event.model_dump_json(exclude_none=True, by_alias=True, warnings="none").encode()


def _proven_json(event: Event, delta: dict[str, Any]) -> bytes | None:
    """Return ADK's JSON of an event with another delta, or None if that would be read as another event."""
    with suppress(Exception):
        data = _adk_json(_with_delta(event, delta))
        if _with_delta(_read(data), {}) == _with_delta(event, {}):
            return data
    return None


def _plain_fields(event: Event) -> dict[str, Any]:
    """Return the fields of an event as JSON data, tagged where JSON has no word for what they hold."""
    plain: dict[str, Any] = {}
    for name in Event.model_fields:
        if getattr(event, name) is None:
            continue
        try:
            dumped = event.model_dump(
                include={name}, exclude_none=True, by_alias=True, warnings="none"
            )
            for value in dumped.values():
                plain[name] = to_plain(value, MAX_DEPTH + _MODELS_DEPTH)
        except Exception as error:  # a caller's own types may raise anything
            raise _refusal(f"Event field {name!r}", error) from error
    return plain


def _prove(data: bytes, fields: dict[str, Any]) -> None:
    """Raise RefusedValue unless an event with these fields can be read from the data and sent over HTTP."""
    for name, value in fields.items():
        try:
            event = Event.model_validate({name: from_plain(value)})
            json.dumps(event.model_dump(mode="json", include={name}), allow_nan=False)
        except Exception as error:
            raise _refusal(f"Event field {name!r}", error) from error
    try:
        again = _plain_fields(_with_delta(_read(data), {}))
    except Exception as error:
        raise _refusal("The event", error) from error
    for name in fields.keys() | again.keys():
        if fields.get(name) != again.get(name):
            raise RefusedValue(
                f"Event field {name!r} cannot be stored: it would be read as another."
            )


def _plain_value(key: str, value: Any) -> Any:
    if not (isinstance(key, str) and is_unicode(key)):
        raise RefusedValue(f"State key {key!r} is not valid Unicode.")
    try:
        return to_plain(value)
    except Exception as error:  # a caller's own types may raise anything
        raise _refusal(f"State key {key!r}", error) from error


def _repair_fields(event: Event) -> None:
    """Replace halves of surrogate pairs in an event, except in its `state_delta`."""
    for model in (event, event.actions):
        for name, value in vars(model).items():
            if name not in ("actions", "state_delta"):
                vars(model)[name] = _repair_text(value)


def _repair_text(value: Any) -> Any:
    """Return the value with valid Unicode. ADK's models, dictionaries and lists are changed in place."""
    if isinstance(value, str):
        return to_unicode(value)
    of_adk = isinstance(value, BaseModel) and type(value).__module__.startswith("google.")
    holder = vars(value) if of_adk else value
    if type(holder) is dict:
        for key, item in holder.items():
            holder[key] = _repair_text(item)
    elif type(holder) is list:
        holder[:] = map(_repair_text, holder)
    return value


def _refusal(what: str, error: Exception) -> RefusedValue:
    return RefusedValue(f"{what} cannot be stored: {_reason(error)}.")


def _reason(error: Exception) -> str:
    """Return in one line what is wrong: the field and the problem, if pydantic names them."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
    return str(error).partition("\n")[0]
