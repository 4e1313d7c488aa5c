"""What the codec accepts comes back, and is readable by everybody; or it is refused. There is no third.

Values of every kind are put everywhere in state and events, and nested beyond every limit.
"""

import dataclasses
import datetime as dt
import enum
import json
import logging
import math
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.events.ui_widget import UiWidget
from google.adk.models.cache_metadata import CacheMetadata
from google.adk.sessions.session import Session
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter
from pydantic_core import to_jsonable_python

from {{ cookiecutter.__package }}.sessions import values
from {{ cookiecutter.__package }}.sessions.codec import (
    decode_event,
    decode_state,
    encode_event,
    encode_state,
)
from {{ cookiecutter.__package }}.sessions.values import MAX_DEPTH, TAG, from_plain

from .figures import LONG

at_length = settings(max_examples=50_000 if LONG else 300)

Pair = namedtuple("Pair", "left right")


class Color(enum.Enum):
    RED = "red"
    BYTES = b"\xff"
    LIST = ("a", math.inf)


class Level(enum.IntEnum):
    HIGH = 2


class Model(BaseModel):
    content: Any
    merchant: str | None = None


@dataclasses.dataclass(frozen=True)
class Data:
    content: Any


class Zone(dt.tzinfo):
    """A zone that is not a fixed offset: what an offset is depends on the fold, as in autumn."""

    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta | None:
        return dt.timedelta(hours=2 - when.fold) if when else None

    def dst(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta()


class Child(BaseModel):
    """Knows its parent, which knows it, but does not say so."""

    name: str
    parent: Any = Field(default=None, exclude=True)


def family() -> Child:
    """Return a model that contains itself where nobody looks."""
    child = Child(name="a")
    child.parent = [child]
    return child


class Grumpy:
    """Cannot be stored, nor compared."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("not comparable")

    def __hash__(self) -> int:
        return 1


OFFSETS = st.timedeltas(dt.timedelta(hours=-23, minutes=-59), dt.timedelta(hours=23, minutes=59))
ZONES = st.none() | st.builds(Zone) | OFFSETS.map(dt.timezone)
TEXTS = st.text(max_size=5) | st.text(st.characters(codec=None), max_size=3)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.integers()
    | st.integers(-5_000, 5_000).map(lambda digits: 10 ** abs(digits) * (1 if digits > 0 else -1))
    | st.floats()
    | TEXTS
    | st.sampled_from([TAG, "value", "\ud83d", "\ud83d\ude00", *Color, *Level])
    | st.binary(max_size=4)
    | st.datetimes(timezones=ZONES)
    | st.dates()
    | st.times(timezones=ZONES)
    | st.timedeltas()
    | st.decimals()
    | st.sampled_from(list(map(Decimal, ("sNaN", "-NaN123", "-0", "1E+999999", "1E-999999"))))
    | st.uuids()
    | st.complex_numbers()
)
HASHABLE = st.recursive(
    SCALARS.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan())),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Data, inner)
    ),
    max_leaves=3,
)
STRANGE = st.sampled_from([Path("a/b"), deque([1, b"2"]), range(3), object])
STRANGE |= st.builds(Grumpy) | st.builds(family)
WRAPPERS: list[Callable[[Any], Any]] = [
    lambda value: [value],
    lambda value: (value,),
    lambda value: {"key": value},
    lambda value: {1: value},
    lambda value: {TAG: "bytes", "value": value},
    lambda value: OrderedDict(key=value),
    lambda value: Pair(value, 1),
    lambda value: Data(value),
    lambda value: Model(content=value),
    lambda value: bytearray(b"\x00\xff"),
]


def nest(value: Any, wrappers: list[Callable[[Any], Any]], depth: int) -> Any:
    """Return the value in so many containers, of all these kinds in turn."""
    for level in range(depth):
        value = wrappers[level % len(wrappers)](value)
    return value


def endless(kind: type) -> Any:
    """Return a container that contains itself."""
    container: Any = kind()
    inner = [container]
    if isinstance(container, list):
        container.append(inner)
    else:
        container["again"] = inner
    return container


VALUES = st.recursive(
    SCALARS | HASHABLE | STRANGE | st.builds(endless, st.sampled_from([list, dict])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXTS | st.just(TAG), inner, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.sets(HASHABLE, max_size=3)
        | st.builds(Model, content=inner)
        | st.builds(Data, inner)
        | st.builds(Pair, inner, inner)
        | st.builds(
            nest,
            inner,
            st.lists(st.sampled_from(WRAPPERS), min_size=1, max_size=3),
            st.integers(1, 15) | st.integers(40, 60) | st.integers(90, 300),
        )
    ),
    max_leaves=6,
)


def form(value: Any) -> Any:
    """Return what must come back of a value, as something that can be compared: types are kept.

    It is what `values.py` promises, written once more in another way.
    """
    if isinstance(value, enum.Enum):
        return form(value.value)
    if isinstance(value, str):
        text = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return "str", text
    if value is None or isinstance(value, (bool, float, complex)):
        return type(value).__name__, repr(value)
    if isinstance(value, int):
        return "int", hex(value)
    if isinstance(value, (bytes, bytearray)):
        return "bytes", bytes(value)
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return type(value).__name__, value.isoformat()
    if isinstance(value, (dt.timedelta, Decimal)) or type(value).__name__ == "UUID":
        return type(value).__name__, str(value)
    if isinstance(value, BaseModel):
        return form(value.model_dump(by_alias=True, warnings="none"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return form({"content": value.content})  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return "dict", sorted((repr(form(key)), form(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return kind, [form(item) for item in value]
    if isinstance(value, (set, frozenset)):
        kind = "set" if isinstance(value, set) else "frozenset"
        return kind, sorted(repr(form(item)) for item in value)
    return form(to_jsonable_python(value, fallback=repr, bytes_mode="base64"))


def form_of_event(event: Event, delta: dict[str, Any]) -> Any:
    """Return what must come back of an event."""
    bare = event.model_copy(update={"actions": event.actions.model_copy()})
    bare.actions.state_delta = {}
    fields = bare.model_dump(exclude_none=True, by_alias=True, warnings="none")
    return form(fields), form(dict(delta))


def write_as_json(session: Session) -> None:
    """Write a session as ADK's HTTP API does, and as an application may do."""
    for data in (
        session.model_dump(mode="json", by_alias=True, exclude_none=True),
        TypeAdapter(Session).dump_python(session, mode="json"),
    ):
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    session.model_dump_json(by_alias=True, exclude_none=True)
    TypeAdapter(list[Session]).dump_json([session])


def session_of(**fields: Any) -> Session:
    return Session(id="s", app_name="a", user_id="u", **fields)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of warnings about objects without a form in JSON help nobody."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def check_value(value: Any) -> None:
    """Store a value, or see that it is refused."""
    try:
        encoded = encode_state({"key": value})
    except ValueError as error:
        assert str(error).startswith("State key 'key' cannot be stored: ")  # noqa: PT017
        return
    decoded = decode_state(encoded)
    assert form(decoded["key"]) == form(value)
    write_as_json(session_of(state=decoded))
    assert form(decode_state(encode_state(decoded))["key"]) == form(value)


@at_length
@given(VALUES)
def test_value_comes_back_or_is_refused(value: Any) -> None:
    check_value(value)


@given(TEXTS)
def test_key_comes_back_or_is_refused(key: str) -> None:
    try:
        encoded = encode_state({key: 1})
    except ValueError as error:
        assert str(error) == f"State key {key!r} is not valid Unicode."  # noqa: PT017
    else:
        assert decode_state(encoded) == {key: 1}


PLACES: dict[str, Callable[[Event, Any], None]] = {
    "custom_metadata": lambda event, value: setattr(event, "custom_metadata", {"k": value}),
    "output": lambda event, value: setattr(event, "output", value),
    "agent_state": lambda event, value: setattr(event.actions, "agent_state", {"k": value}),
    "response": lambda event, value: setattr(event.actions, "set_model_response", value),
    "delta": lambda event, value: event.actions.state_delta.update(k=value),
    "arguments": lambda event, value: _part(
        event, function_call=types.FunctionCall(name="f", args={"k": value})
    ),
    "result": lambda event, value: _part(
        event, function_response=types.FunctionResponse(name="f", response={"k": value})
    ),
    "confirmation": lambda event, value: event.actions.requested_tool_confirmations.update(
        call=ToolConfirmation(hint="?", payload=value)
    ),
    "widget": lambda event, value: setattr(
        event.actions, "render_ui_widgets", [UiWidget(id="w", provider="p", payload={"k": value})]
    ),
    "image": lambda event, value: _part(
        event, inline_data=types.Blob(data=repr(type(value)).encode(), mime_type="image/png")
    ),
    "cache": lambda event, value: setattr(
        event, "cache_metadata", CacheMetadata(fingerprint="f", contents_count=2)
    ),
    "tools": lambda event, value: setattr(event, "long_running_tool_ids", {"a", "b"}),
}


def _part(event: Event, **fields: Any) -> None:
    event.content = event.content or types.Content(parts=[])
    assert event.content.parts is not None
    event.content.parts.append(types.Part(**fields))


FIELDS = st.sampled_from(sorted(Event.model_fields))
ACTIONS = st.sampled_from(sorted(EventActions.model_fields.keys() - {"state_delta"}))
PART_FIELDS = st.sampled_from(sorted(types.Part.model_fields))


ASSIGNED = (
    SCALARS
    | st.lists(SCALARS, max_size=2)
    | st.dictionaries(TEXTS, SCALARS, max_size=2)
    | st.builds(Model, content=SCALARS)
)


def assign(model: BaseModel, name: str, value: Any) -> None:
    """Assign a value that need not be of the field's type, but is no number that equals one that is."""
    kinds = str(type(model).model_fields[name].annotation)
    if isinstance(value, (int, float, complex, Decimal)):
        value = True if "bool" in kinds else 0.5 if "float" in kinds else value
    setattr(model, name, value)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Make an event with values in some of the places, and perhaps a field whose type nobody checked."""
    event = Event(author="a", id="e", timestamp=1.5)
    for place in draw(st.lists(st.sampled_from(sorted(PLACES)), max_size=3)):
        PLACES[place](event, draw(VALUES))
    match draw(st.integers(0, 12)):
        case 0:
            name = draw(FIELDS)
            if name != "actions":
                assign(event, name, draw(ASSIGNED))
        case 1:
            assign(event.actions, draw(ACTIONS), draw(ASSIGNED))
        case 2:
            part = types.Part()
            assign(part, draw(PART_FIELDS), draw(ASSIGNED))
            event.content = types.Content(parts=[part])
    return event


def check_event(event: Event) -> None:
    """Store an event, or see that it is refused."""
    delta = event.actions.state_delta
    try:
        data = encode_event(event, delta)
    except ValueError as error:
        reason = str(error)
        assert reason.startswith(("Event field ", "State key 'k'"))
        assert " cannot be stored: " in reason
        return
    decoded = decode_event(data)
    assert form_of_event(decoded, decoded.actions.state_delta) == form_of_event(event, delta)
    write_as_json(session_of(events=[decoded]))
    assert decode_event(encode_event(decoded, decoded.actions.state_delta))


@at_length
@given(events())
def test_event_comes_back_or_is_refused(event: Event) -> None:
    check_event(event)


@pytest.mark.parametrize("wrap", WRAPPERS[:-1])
def test_nesting_is_refused_beyond_its_limit_and_nowhere_before(
    wrap: Callable[[Any], Any],
) -> None:
    for scalar in (1, b"\xff", "\ud83d"):
        check_value(nest(scalar, [wrap], MAX_DEPTH))
        with pytest.raises(ValueError, match="State key 'key' cannot be stored: it is nested"):
            encode_state({"key": nest(scalar, [wrap], MAX_DEPTH + 1)})


def test_old_formats_are_readable() -> None:
    """Text with half a surrogate pair was once stored as it was."""
    assert decode_state({"k": b'{"$type": "text", "value": "aGFsZiDtoL0="}'}) == {"k": "half �"}


def test_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec that loses tuples on the way is found out."""

    def is_lost(value: Any) -> bool:
        try:
            check_value(value)
        except AssertionError:
            return True
        return False

    monkeypatch.setitem(values._FROM_TEXT, "tuple", lambda value: list(map(from_plain, value)))
    assert isinstance(hypothesis.find(VALUES, is_lost), tuple)
