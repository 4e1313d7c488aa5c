"""Which events come back from their JSON as they are. Of these it need not be proved (`codec.py`).

An event is ordinary if it consists of the models that most events consist of, if each value is exactly
of the type that its field is declared with, and if free-form values are plain JSON.
"""

from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from google.adk.events.event import Event, NodeInfo
from google.adk.events.event_actions import EventActions
from google.genai import types
from pydantic import BaseModel

from .values import is_plain

_MODELS: tuple[type[BaseModel], ...] = (
    Event,
    EventActions,
    NodeInfo,
    types.Content,
    types.Part,
    types.Blob,
    types.FileData,
    types.FunctionCall,
    types.FunctionResponse,
    types.GenerateContentResponseUsageMetadata,
    types.ModalityTokenCount,
    types.Transcription,
)


def _kind(annotation: Any) -> Any:
    """Return the type that a field's values must have; `[type]` for a list of it, None for only `{}`."""
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if get_origin(annotation) in (Union, UnionType) and len(kinds) == 1:
        annotation, kinds = kinds[0], list(get_args(kinds[0]))
    if get_origin(annotation) is list:
        return kinds
    if get_origin(annotation) is dict:
        return dict if kinds == [str, Any] else None
    return annotation


_KINDS: dict[type, dict[str, Any]] = {
    model: {name: _kind(field.annotation) for name, field in model.model_fields.items()}
    for model in _MODELS
}
_KINDS[EventActions]["requested_auth_configs"] = None  # ADK makes models of what is in it
_NEVER_NONE: dict[type, list[str]] = {
    model: [name for name, field in model.model_fields.items() if field.default is not None]
    for model in _MODELS
}


def is_ordinary(event: Event) -> bool:
    """Whether all of an event but its `state_delta`, which is not looked at, comes back from its JSON."""
    return bool(event.id) and _is_ordinary(event, Event)  # ADK makes up an id where there is none


def _is_ordinary(value: Any, kind: Any) -> bool:
    if type(value) is not kind:
        return kind is None and type(value) is dict and not value
    if kind not in _KINDS:
        return kind is bytes or isinstance(value, Enum) or is_plain(value)
    kinds, values = _KINDS[kind], vars(value)
    for name in _NEVER_NONE[kind]:
        if values.get(name) is None:
            return False
    for name, item in values.items():
        if item is None or name == "state_delta":
            continue
        expected = kinds.get(name, False)
        if type(item) is list and type(expected) is list:
            ordinary = all(_is_ordinary(each, expected[0]) for each in item)
        else:
            ordinary = _is_ordinary(item, expected)
        if not ordinary:
            return False
    return True
