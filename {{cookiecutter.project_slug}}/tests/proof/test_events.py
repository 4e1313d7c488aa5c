"""Events and values come back as they were stored, including types that JSON lacks. Others are refused."""

import base64
import datetime as dt
import json
import logging
import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from google.adk.auth.auth_credential import AuthCredential, AuthCredentialTypes
from google.adk.auth.auth_schemes import OpenIdConnectWithConfig
from google.adk.auth.auth_tool import AuthConfig
from google.adk.events.event import Event, NodeInfo
from google.adk.events.event_actions import EventActions, EventCompaction
from google.adk.events.ui_widget import UiWidget
from google.adk.models.cache_metadata import CacheMetadata
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.session import Session
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai import types
from pydantic import BaseModel, TypeAdapter

from {{ cookiecutter.__package }}.sessions.codec import encode_event
from {{ cookiecutter.__package }}.sessions.values import MAX_DEPTH, TAG, to_plain

from ..sessions.support import create, event, get, texts

CONTENT = types.Content(
    role="model",
    parts=[
        types.Part(text="thinking", thought=True, thought_signature=b"\x00\xff\xfe"),
        types.Part(inline_data=types.Blob(data=bytes(range(256)), mime_type="image/png")),
        types.Part(file_data=types.FileData(file_uri="gs://bucket/file", mime_type="text/plain")),
        types.Part(
            function_call=types.FunctionCall(id="1", name="f", args={"a": None, "b": [1.5]})
        ),
        types.Part(
            function_response=types.FunctionResponse(id="1", name="f", response={"r": {"x": None}})
        ),
        types.Part(
            executable_code=types.ExecutableCode(code="1+1", language=types.Language.PYTHON)
        ),
        types.Part(
            code_execution_result=types.CodeExecutionResult(
                outcome=types.Outcome.OUTCOME_OK, output="2"
            )
        ),
    ],
)

ACTIONS: dict[str, Any] = {
    "skip_summarization": True,
    "state_delta": {"a": None, "b": {"c": [1, "two", None]}, "user:d": 0.1},
    "artifact_delta": {"file.txt": 3},
    "transfer_to_agent": "other",
    "transfer_reason": "asked",
    "escalate": False,
    "requested_auth_configs": {
        "call": AuthConfig(
            auth_scheme=OpenIdConnectWithConfig(
                authorization_endpoint="https://example.com/auth",
                token_endpoint="https://example.com/token",  # noqa: S106
                scopes=["openid"],
            ),
            raw_auth_credential=AuthCredential(
                auth_type=AuthCredentialTypes.API_KEY, api_key="not a real one"
            ),
        )
    },
    "requested_tool_confirmations": {
        "call": ToolConfirmation(hint="sure?", confirmed=False, payload={"x": 1})
    },
    "compaction": EventCompaction(
        start_timestamp=1.0, end_timestamp=2.5, compacted_content=CONTENT
    ),
    "end_of_agent": True,
    "agent_state": {"step": 3, "nothing": None},
    "rewind_before_invocation_id": "earlier",
    "route": ["left", 2, True],
    "render_ui_widgets": [UiWidget(id="w", provider="p", payload={"k": None})],
    "set_model_response": {"answer": 42},
}

EVENT: dict[str, Any] = {
    "model_version": "model-1",
    "content": CONTENT,
    "grounding_metadata": types.GroundingMetadata(web_search_queries=["q"]),
    "partial": False,
    "turn_complete": True,
    "turn_complete_reason": types.TurnCompleteReason.NEED_MORE_INPUT,
    "interaction_status": next(iter(types.InteractionStatus)),
    "finish_reason": types.FinishReason.STOP,
    "error_code": "E1",
    "error_message": "it broke",
    "interrupted": True,
    "custom_metadata": {"k": [1, None, {"deep": True}]},
    "usage_metadata": types.GenerateContentResponseUsageMetadata(
        prompt_token_count=3, total_token_count=7
    ),
    "live_session_resumption_update": types.LiveServerSessionResumptionUpdate(new_handle="h"),
    "live_session_id": "live",
    "go_away": types.LiveServerGoAway(time_left="10s"),
    "voice_activity": types.VoiceActivity(),
    "input_transcription": types.Transcription(text="said", finished=True),
    "output_transcription": types.Transcription(text="heard"),
    "avg_logprobs": -0.25,
    "logprobs_result": types.LogprobsResult(
        chosen_candidates=[types.LogprobsResultCandidate(token="t", log_probability=-1.5)]  # noqa: S106
    ),
    "cache_metadata": CacheMetadata(fingerprint="f", contents_count=2),
    "citation_metadata": types.CitationMetadata(citations=[types.Citation(uri="https://x.org")]),
    "interaction_id": "interaction",
    "environment_id": "environment",
    "invocation_id": "invocation",
    "author": "agent",
    "actions": EventActions(**ACTIONS),
    "output": {"any": ["thing", None]},
    "node_info": NodeInfo(path="a/b@1", output_for=["a"], message_as_output=True),
    "long_running_tool_ids": {"b", "a"},
    "branch": "a.b",
    "isolation_scope": "scope",
    "id": "event-1",
    "timestamp": 1234567890.123456,
}

Box = namedtuple("Box", "left right")


class Order(BaseModel):
    """A value that an agent may keep in its state."""

    text: str
    photo: bytes
    merchant: str | None = None


@dataclass(frozen=True)
class Spot:
    x: int


def nested(depth: int) -> Any:
    """Return a list in a list in a list …"""
    return [nested(depth - 1)] if depth > 1 else []


VALUES: dict[str, Any] = {
    "bytes": b"\x00\xff",
    "tuple": (1, (2, [3])),
    "set": {1, 2},
    "frozenset": frozenset({"a"}),
    "datetime": dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC),
    "date": dt.date(2026, 1, 2),
    "time": dt.time(3, 4),
    "timedelta": dt.timedelta(days=-1, microseconds=1),
    "decimal": Decimal("1.10"),
    "uuid": UUID(int=7),
    "complex": 1 + 2j,
    "infinity": -math.inf,
    "large": 10**30,
    "keys": {1: "a", (2, 3): "b"},
    "like a tag": {TAG: "bytes", "value": "AA=="},
    "deep": nested(MAX_DEPTH),
}
"""Values that come back unchanged."""

SIMPLER: list[tuple[Any, Any]] = [
    (types.Language.PYTHON, "PYTHON"),
    (Spot(1), {"x": 1}),
    ({Box(1, 2)}, {(1, 2)}),
    (OrderedDict(a=bytearray(b"x")), {"a": b"x"}),
    ("half \ud83d", "half �"),
    (Path("a/b"), "a/b"),
]
"""Values that come back simplified. ADK's in-memory service returns the objects themselves."""

REFUSED: list[Any] = [
    nested(MAX_DEPTH + 1),
    10**5_000,
    {"cut \ud83d": 1},
    {frozenset(): 1},
    {Spot(1)},
]
"""Values that could not be read back or sent over HTTP."""

REFUSED_FIELDS: list[tuple[str, Any]] = [
    ("timestamp", math.inf),
    ("avg_logprobs", math.nan),
    ("error_code", 404),
    ("content", "hello"),
    ("author", None),
    ("custom_metadata", {"deep": nested(199)}),
]
"""Values that pydantic does not check, because they are assigned after the event was created."""


class TestEvents:
    def test_example_sets_every_field_of_adk(self) -> None:
        """If this fails, ADK has a new field. Add it above and check that it is stored."""
        assert EVENT.keys() == Event.model_fields.keys()
        assert ACTIONS.keys() == EventActions.model_fields.keys()

    async def test_every_field_comes_back(self, any_service: BaseSessionService) -> None:
        session = await create(any_service)
        await any_service.append_event(session, Event(**EVENT))
        (stored,) = (await get(any_service)).events
        for name, value in EVENT.items():
            assert getattr(stored, name) == value, name
        for name, value in ACTIONS.items():
            assert getattr(stored.actions, name) == value, name

    async def test_values_beyond_json_come_back_in_every_field(
        self, any_service: BaseSessionService
    ) -> None:
        session = await create(any_service)
        call = types.FunctionCall(name="f", args=VALUES)
        response = types.FunctionResponse(name="f", response=VALUES)
        parts = [types.Part(function_call=call), types.Part(function_response=response)]
        said = Event(**EVENT | {"content": types.Content(parts=parts), "custom_metadata": VALUES})
        await any_service.append_event(session, said)
        assert (await get(any_service)).events == [said]

    def test_event_is_stored_as_adk_writes_it(self) -> None:
        said = event(own=1)
        expected = said.model_dump_json(exclude_none=True, by_alias=True)
        assert encode_event(said, said.actions.state_delta) == expected.encode()

    async def test_lone_surrogate_becomes_a_replacement_character(
        self, service: BaseSessionService
    ) -> None:
        """A model may cut an emoji in half. The half can neither be stored nor sent over HTTP.

        The caller's event is changed too. ADK's in-memory service keeps the half.
        """
        session = await create(service)
        said = event("cut \ud83d off", answer=["\ud83d\ude00"], photo=b"\xff")
        await service.append_event(session, said)
        for each in (session, await get(service)):
            assert texts(each) == ["cut � off"]
            assert each.state == {"answer": ["😀"], "photo": b"\xff"}
            assert each.events == [said]

    @pytest.mark.parametrize(("name", "value"), REFUSED_FIELDS)
    async def test_unreadable_field_is_refused(
        self, service: BaseSessionService, name: str, value: Any
    ) -> None:
        session = await create(service)
        said = event()
        setattr(said, name, value)
        with pytest.raises(ValueError, match=f"Event field '{name}' cannot be stored: "):
            await service.append_event(session, said)
        assert session.events == (await get(service)).events == []


class TestValues:
    async def test_values_beyond_json_come_back(self, any_service: BaseSessionService) -> None:
        session = await create(any_service, state=VALUES)
        shared = {f"{scope}:{name}": VALUES[name] for name in VALUES for scope in ("user", "app")}
        await any_service.append_event(session, event(**shared))
        stored = await get(any_service)
        assert stored.state == VALUES | shared
        assert stored.events[0].actions.state_delta == shared
        for name, value in VALUES.items():
            assert isinstance(stored.state[name], type(value))

    @pytest.mark.parametrize("value", [None, True, 0.5, "é", [1, "a"], {"a": {"é": [None]}}])
    def test_json_values_are_stored_unchanged(self, value: Any) -> None:
        """People can read them in the database."""
        assert to_plain(value) == value

    async def test_pydantic_model_comes_back_as_a_dict(self, service: BaseSessionService) -> None:
        """Fields that are None are kept, so the model can be validated again."""
        order = Order(text="whales", photo=b"\xff")
        part = types.Part(inline_data=types.Blob(data=b"\xff", mime_type="image/png"))
        session = await create(service, state={"order": order})
        await service.append_event(session, event(part=part))
        state = (await get(service)).state
        assert state["order"] == {"text": "whales", "photo": b"\xff", "merchant": None}
        assert Order.model_validate(state["order"]) == order
        assert types.Part.model_validate(state["part"]) == part

    async def test_other_types_come_back_simplified(self, service: BaseSessionService) -> None:
        values = {str(number): value for number, (value, _) in enumerate(SIMPLER)}
        await create(service, state=values)
        stored = await get(service)
        for number, (_, simpler) in enumerate(SIMPLER):
            assert stored.state[str(number)] == simpler

    async def test_unknown_type_becomes_its_repr_with_a_warning(
        self, service: BaseSessionService, caplog: pytest.LogCaptureFixture
    ) -> None:
        """ADK's database services do the same. Its in-memory service keeps the object."""
        with caplog.at_level(logging.WARNING):
            await create(service, state={"object": object(), "fine": 1})
        stored = await get(service)
        assert stored.state["fine"] == 1
        assert stored.state["object"].startswith("<object object")
        assert "type object" in caplog.text

    @pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
    @pytest.mark.parametrize("key", ["own", "user:x", "app:x"])
    async def test_unreadable_value_is_refused(
        self, service: BaseSessionService, key: str, value: Any
    ) -> None:
        session = await create(service)
        reason = f"State key '{key}' cannot be stored: "
        with pytest.raises(ValueError, match=reason):
            await service.append_event(session, event(**{"fine": 1, key: value}))
        with pytest.raises(ValueError, match=reason):
            await create(service, "second", state={key: value})
        stored = await get(service)
        assert session.events == stored.events == []
        assert session.state == stored.state == {}

    async def test_state_key_must_be_valid_unicode(self, service: BaseSessionService) -> None:
        """Replacing the surrogate would change the key, and could make two keys equal."""
        with pytest.raises(ValueError, match=r"State key 'cut \\ud83d' is not valid Unicode"):
            await create(service, state={"cut \ud83d": 1})

    async def test_session_with_any_state_can_be_written_as_json(
        self, service: BaseSessionService
    ) -> None:
        """ADK's HTTP API writes JSON, and one bad `app:` value must not break it for every user."""
        session = await create(service, state={"app:logo": b"\x89PNG", "none": math.nan})
        said = event("cut \ud83d", **VALUES | {"by bytes": {b"\xff": 1, (b"\xff", 2): 3}})
        await service.append_event(session, said)
        stored = await get(service)
        for each in (session, stored):
            written = each.model_dump(mode="json", by_alias=True, exclude_none=True)
            assert json.dumps(written, ensure_ascii=False, allow_nan=False).encode()
            assert written["state"]["app:logo"] == base64.b64encode(b"\x89PNG").decode()
        assert TypeAdapter(Session).dump_json(stored)  # as an application that uses FastAPI does
