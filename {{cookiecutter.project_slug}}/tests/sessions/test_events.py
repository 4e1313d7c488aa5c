"""What goes in comes out: every field of an event, and values that JSON has no word for."""

import datetime as dt
import logging
import math
from decimal import Decimal
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
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from {{ cookiecutter.__package }}.sessions.codec import decode_event, encode_event
from {{ cookiecutter.__package }}.sessions.errors import CorruptSession
from {{ cookiecutter.__package }}.sessions.values import TAG, from_plain, to_plain

from .support import create, event, get

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

DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None))
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(dt.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers() | st.just(TAG), inner)
        | st.lists(inner).map(tuple)
        | st.frozensets(st.integers() | st.text())
        | st.sets(st.binary())
    ),
    max_leaves=12,
)


class TestEvents:
    def test_the_fields_below_are_all_that_adk_has(self) -> None:
        """When this fails, ADK has grown: add the new field above and see that it is stored."""
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

    async def test_an_image_comes_back(self, any_service: BaseSessionService) -> None:
        session = await create(any_service)
        image = bytes(range(256)) * 400
        blob = types.Blob(data=image, mime_type="image/png")
        said = Event(author="user", content=types.Content(parts=[types.Part(inline_data=blob)]))
        await any_service.append_event(session, said)
        assert (await get(any_service)).events == [said]

    async def test_half_a_character_does_not_break_a_session(
        self, any_service: BaseSessionService
    ) -> None:
        """Models cut emoji in half. Stored text shows � there; in memory the half is kept."""
        session = await create(any_service)
        await any_service.append_event(session, event("cut \ud83d off"))
        (stored,) = (await get(any_service)).events
        assert stored.content is not None
        assert stored.content.parts is not None
        assert stored.content.parts[0].text in ("cut \ud83d off", "cut ? off", "cut � off")

    async def test_half_a_character_leaves_the_rest_of_its_event_whole(
        self, service: BaseSessionService
    ) -> None:
        session = await create(service)
        said = event("cut \ud83d off", own=b"\xff")
        assert said.content is not None
        assert said.content.parts is not None
        blob = types.Blob(data=b"\x00\xff", mime_type="image/png")
        said.content.parts.append(types.Part(inline_data=blob))
        await service.append_event(session, said)
        (stored,) = (await get(service)).events
        assert stored.content is not None
        assert stored.content.parts is not None
        assert stored.content.parts[1] == said.content.parts[1]
        assert stored.actions == said.actions

    def test_half_a_character_does_not_change_the_form_of_what_is_stored(self) -> None:
        """There are two ways to JSON; both leave out what is None, and have ADK's names of the fields."""
        whole, cut = (
            encode_event(event(text, own=1), {"own": 1}) for text in ("cut", "cut \ud83d")
        )
        assert from_json(cut).keys() == from_json(whole).keys()

    def test_bytes_that_are_no_event_are_a_corrupt_session(self) -> None:
        good = encode_event(event(own=b"x"), {"own": b"x"})
        for bad in (b"", b"{", b"null", b"[]", good[:-5], good.replace(b'"bytes"', b'"unheard"')):
            with pytest.raises(CorruptSession):
                decode_event(bad)


class TestValues:
    @pytest.mark.parametrize(
        "value",
        [
            b"\x00\xff",
            (1, (2, [3])),
            {1, 2},
            frozenset({"a"}),
            dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC),
            dt.date(2026, 1, 2),
            dt.time(3, 4),
            dt.timedelta(days=-1, microseconds=1),
            Decimal("1.10"),
            UUID(int=7),
            1 + 2j,
            math.inf,
            -math.inf,
            10**30,
            {1: "a", (2, 3): "b"},
            {TAG: "bytes", "value": "AA=="},
            "half \ud83d",
            {"deep": [{"bytes": b"x"}]},
        ],
        ids=repr,
    )
    async def test_what_json_cannot_say_comes_back_as_it_was(
        self, any_service: BaseSessionService, value: Any
    ) -> None:
        session = await create(any_service, state={"created": value, "user:created": value})
        changed = event()
        changed.actions.state_delta = {"appended": value, "app:appended": value}
        await any_service.append_event(session, changed)
        stored = await get(any_service)
        keys = ("created", "user:created", "appended", "app:appended")
        assert stored.state == dict.fromkeys(keys, value)
        assert {type(found) for found in stored.state.values()} == {type(value)}
        assert stored.events[0].actions.state_delta == changed.actions.state_delta

    async def test_not_a_number_comes_back(self, any_service: BaseSessionService) -> None:
        await create(any_service, state={"n": math.nan})
        assert math.isnan((await get(any_service)).state["n"])

    @pytest.mark.parametrize(
        "value", [None, True, 1, 0.5, "a", "é", [1, "é"], {"a": {"é": [None]}}]
    )
    def test_what_json_can_say_is_stored_as_it_is(self, value: Any) -> None:
        """Short, and to be read by whoever looks into the database."""
        assert to_plain(value) == value

    async def test_models_and_enumerations_come_back_as_their_json(
        self, service: BaseSessionService
    ) -> None:
        """In memory the objects themselves would stay; ADK's database services do as this one does."""
        blob = types.Blob(data=b"\xff", mime_type="image/png")
        await create(
            service, state={"part": types.Part(inline_data=blob), "is": types.Language.PYTHON}
        )
        assert (await get(service)).state == {
            "part": {"inlineData": {"data": "_w==", "mimeType": "image/png"}},
            "is": "PYTHON",
        }

    async def test_what_cannot_be_stored_is_kept_as_its_repr_with_a_warning(
        self, service: BaseSessionService, caplog: pytest.LogCaptureFixture
    ) -> None:
        """In memory the object itself would stay; ADK's database services do as this one does."""
        with caplog.at_level(logging.WARNING):
            await create(service, state={"object": object(), "fine": 1})
        stored = await get(service)
        assert stored.state["fine"] == 1
        assert stored.state["object"].startswith("<object object")
        assert "type object" in caplog.text

    async def test_half_a_character_in_a_key_is_refused_before_anything_is_written(
        self, service: BaseSessionService
    ) -> None:
        """Stored with a � instead, it would be another key, and two such keys would be one."""
        session = await create(service)
        changed = event()
        changed.actions.state_delta = {"cut \ud83d": 1}
        with pytest.raises(ValueError, match=r"State key .* is not valid Unicode"):
            await service.append_event(session, changed)
        assert (await get(service)).events == []
        with pytest.raises(ValueError, match=r"State key .* is not valid Unicode"):
            await create(service, "second", state=changed.actions.state_delta)

    async def test_a_value_that_contains_itself_is_refused_before_anything_is_written(
        self, service: BaseSessionService
    ) -> None:
        session = await create(service)
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(ValueError, match="State key 'own' cannot be stored"):
            await service.append_event(session, event(own=endless))
        assert session.events == []
        assert (await get(service)).events == []

    @given(DATA)
    def test_every_value_survives_the_way_to_json_and_back(self, value: Any) -> None:
        back = from_plain(from_json(to_json(to_plain(value))))
        assert back == value
        assert type(back) is type(value)
