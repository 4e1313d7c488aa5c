"""Tests of the demo's offline model. Delete them together with the demo."""

import pytest
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.genai import types

from {{ cookiecutter.__package }}.agent import root_agent
from {{ cookiecutter.__package }}.demo import offline_model
from {{ cookiecutter.__package }}.demo.offline_model import LABEL, OfflineModel
from {{ cookiecutter.__package }}.settings import DEFAULT_MODEL, model


@pytest.mark.parametrize(
    ("message", "tool", "arguments"),
    [
        ("hi, i'm ada", "remember", {"key": "name", "value": "ada", "scope": "user"}),
        ("My name is Zoë 🎉!", "remember", {"key": "name", "value": "Zoë 🎉", "scope": "user"}),
        ("I am 李小龍", "remember", {"key": "name", "value": "李小龍", "scope": "user"}),
        ("My name is עדה.", "remember", {"key": "name", "value": "עדה", "scope": "user"}),
        ("I’m J. R. R. Tolkien", "remember", {"value": "J. R. R. Tolkien"}),
        ("Call me Dr. O'Neil and tell me a joke", "remember", {"value": "Dr. O'Neil"}),
        ("My name is Ada. What can you do?", "remember", {"value": "Ada"}),
        ("Remember my name is Ada", "remember", {"key": "name", "value": "Ada"}),
        ("remember that x = 1", "remember", {"key": "x", "value": "1", "scope": "user"}),
        ("Remember: the code is a is b", "remember", {"key": "code", "value": "a is b"}),
        ("For this chat, remember that x is 1", "remember", {"scope": "session"}),
        ("Tell everyone: the office is closed", None, {}),
        ("Do you remember what my name is?", "recall", {"key": "name"}),
        ("Can you tell me what's the door code?", "recall", {"key": "door code"}),
        ("I am Ada; what is the weather like?", "remember", {"value": "Ada"}),
        ("I am tired. What is the time?", "recall", {"key": "time"}),
        ("Please give me a session report", "session_report", {}),
        ("Do you know my name?", "recall", {"key": "name"}),
        ("What are my plans?", "recall", {"key": "plans"}),
        ("everything you know about me", None, {}),
        ("I am very tired", None, {}),
        ("My name is", None, {}),
        ("", None, {}),
        ("\ud83d \x00 \x1b[2J", None, {}),
        ("remember " * 100_000, None, {}),
    ],
)
def test_message_becomes_a_tool_call(
    message: str, tool: str | None, arguments: dict[str, str]
) -> None:
    found, given = offline_model.understand(message)
    assert found == tool
    assert given | arguments == given


async def answers(
    contents: list[types.Content], *, stream: bool = False
) -> list[tuple[str, bool | None]]:
    """Return the texts of the offline model's answer, and whether each is partial. It has no tools."""
    request = LlmRequest(contents=contents)
    responses = [part async for part in OfflineModel().generate_content_async(request, stream)]
    return [(text_of(response), response.partial) for response in responses]


def text_of(response: LlmResponse) -> str:
    """Return the text of a response of one part."""
    assert response.content
    assert response.content.parts
    return response.content.parts[0].text or ""


IMAGE = types.Part.from_bytes(data=b"\x89PNG", mime_type="image/png")
RESULT = types.Part.from_function_response(name="weather", response={"rain": None})


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param([], id="no contents"),
        pytest.param([types.Content(role="user")], id="no parts"),
        pytest.param([types.Content(role="user", parts=[types.Part(text="")])], id="no text"),
        pytest.param([types.Content(role="user", parts=[IMAGE])], id="an image"),
        pytest.param([types.Content(role="user", parts=[RESULT])], id="a result of another tool"),
        pytest.param(
            [types.Content(role="user", parts=[types.Part(text="who am I")])], id="no tool"
        ),
    ],
)
async def test_any_message_is_answered(contents: list[types.Content]) -> None:
    ((text, _),) = await answers(contents)
    assert text.startswith(LABEL)


async def test_streamed_answer_ends_with_the_full_text() -> None:
    *words, whole = await answers(
        [types.Content(role="user", parts=[types.Part(text="hello")])], stream=True
    )
    assert all(partial for _, partial in words)
    assert not whole[1]
    assert "".join(text for text, _ in words) == whole[0]


def test_offline_model_is_used_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_GENAI_USE_ENTERPRISE", "GOOGLE_GENAI_USE_VERTEXAI"):
        monkeypatch.setenv(name, "false")
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "MODEL"):
        monkeypatch.delenv(name, raising=False)
    assert model() == "offline"

    monkeypatch.setenv("GEMINI_API_KEY", "not-a-real-key")
    assert model() == DEFAULT_MODEL
    monkeypatch.setenv("MODEL", "gemini-of-tomorrow")
    assert model() == "gemini-of-tomorrow"
    monkeypatch.setenv("MODEL", "offline")
    assert model() == "offline", "the demo and the tests set it"

    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.delenv("MODEL")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    assert model() == DEFAULT_MODEL


def test_adk_finds_the_offline_model_by_name() -> None:
    agent = root_agent.clone(update={"model": "offline"})
    assert isinstance(agent.canonical_model, OfflineModel)
