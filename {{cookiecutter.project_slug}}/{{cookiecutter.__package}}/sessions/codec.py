"""Events and state values to bytes and back.

An event is ADK's own JSON of it, without the fields that are None (a third of the size). Its
`state_delta` is written value by value like state (`values.py`), because JSON alone would lose types.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from google.adk.events.event import Event
from pydantic_core import from_json, to_json

from .errors import CorruptSession
from .values import TAG, from_plain, to_plain

SLICE_SECONDS = 0.002
"""For how long other tasks wait while many events are decoded or copied."""

_TAG_BYTES = to_json(TAG)


def encode_event(event: Event, delta: Mapping[str, Any]) -> bytes:
    """Return the bytes of an event whose `state_delta` is `delta`; the event is left as it is.

    Raises:
        ValueError: a value of the delta contains itself.
    """
    if event.actions and event.actions.state_delta:
        actions = event.actions.model_copy(
            update={"state_delta": {key: _plain(key, value) for key, value in delta.items()}}
        )
        event = event.model_copy(update={"actions": actions})
    try:
        return event.model_dump_json(exclude_none=True, by_alias=True).encode()
    except ValueError:
        # Half a surrogate pair in a text is no UTF-8, a tool's own type in a response no JSON.
        plain = event.model_dump(mode="json", exclude_none=True, by_alias=True, fallback=repr)
        return to_json(_replace_surrogates(plain))


def decode_event(data: bytes) -> Event:
    """Return the event that `encode_event` was given.

    Raises:
        CorruptSession: the bytes are not an event that this version of ADK can read.
    """
    try:
        event = Event.model_validate_json(data)
        if _TAG_BYTES in data:
            delta = {key: from_plain(value) for key, value in event.actions.state_delta.items()}
            event.actions.state_delta = delta
    except ValueError as error:
        raise CorruptSession(f"a stored event cannot be read ({_first_line(error)})") from error
    return event


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
        ValueError: a value contains itself, or a key is not valid Unicode.
    """
    return {key: to_json(_plain(key, value)) for key, value in state.items()}


def decode_state(state: Mapping[str, bytes], *, prefix: str = "") -> dict[str, Any]:
    """Return the state with each value decoded, its keys with the prefix of their scope.

    Raises:
        CorruptSession: a value cannot be read.
    """
    decoded = {}
    for key, data in state.items():
        try:
            value = from_json(data)
            decoded[prefix + key] = from_plain(value) if _TAG_BYTES in data else value
        except ValueError as error:
            problem = f"the stored value of state key {prefix + key!r} cannot be read"
            raise CorruptSession(f"{problem} ({_first_line(error)})") from error
    return decoded


def _plain(key: str, value: Any) -> Any:
    try:
        key.encode()
        return to_plain(value)
    except UnicodeEncodeError:
        raise ValueError(f"State key {key!r} is not valid Unicode.") from None
    except ValueError as error:
        raise ValueError(f"State key {key!r} cannot be stored: {error}.") from None


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    return value


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
