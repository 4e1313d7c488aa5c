"""What the agent remembers, for whom, and how its offline model follows a conversation."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.adk.models.llm_request import LlmRequest
from google.adk.runners import Runner
from google.genai import types

from {{ cookiecutter.__package }} import offline_model
from {{ cookiecutter.__package }}.agent import model, root_agent
from {{ cookiecutter.__package }}.offline_model import LABEL, OfflineModel
from {{ cookiecutter.__package }}.sessions.config import BACKEND_TITLE
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.settings import APP_NAME, DEFAULT_MODEL

Say = Callable[..., Awaitable[str]]


@pytest.fixture
def say(service: PersistentSessionService) -> Say:
    """Say something to the agent; the sessions of its answers are on the real server."""
    agent = root_agent.clone(update={"model": OfflineModel()})
    runner = Runner(
        app_name=APP_NAME, agent=agent, session_service=service, auto_create_session=True
    )

    async def say(text: str, *, user: str = "ada", session: str = "first") -> str:
        message = types.Content(role="user", parts=[types.Part(text=text)])
        answer = ""
        async for event in runner.run_async(user_id=user, session_id=session, new_message=message):
            parts = (event.content.parts if event.content else None) or []
            answer = "".join(part.text or "" for part in parts) or answer
        return answer

    return say


async def test_a_name_is_known_in_every_conversation_of_that_user(say: Say) -> None:
    await say("Hello! My name is Ada.")
    assert "Your name is Ada." in await say("What is my name?")
    assert "Your name is Ada." in await say("Who am I?", session="second")
    assert "do not know your name" in await say("Who am I?", user="grace")


async def test_what_everyone_may_know_is_known_to_other_users(say: Say) -> None:
    await say("Remember for everyone that the door code is 42.")
    assert "door code is 42" in await say("What is the door code?", user="grace")


async def test_what_is_for_this_conversation_stays_in_it(say: Say) -> None:
    await say("Remember that the topic is whales, for this conversation.")
    assert "topic is whales" in await say("What is the topic?")
    assert "do not know: topic" in await say("What is the topic?", session="second")


async def test_what_is_told_again_replaces_what_was_known(say: Say) -> None:
    await say("My favourite colour is green")
    await say("My favourite colour is dark blue")
    assert "favourite colour is dark blue" in await say("What's my favourite colour?")


async def test_everything_that_is_known_can_be_asked_for(say: Say) -> None:
    assert "do not remember anything" in await say("What do you remember?")
    await say("My name is Ada")
    await say("Remember for this conversation that the topic is whales")
    answer = await say("What do you know about me?")
    assert "name is Ada" in answer
    assert "topic is whales" in answer


async def test_the_agent_reports_on_its_own_session(
    say: Say, service: PersistentSessionService
) -> None:
    await service.create_session(app_name=APP_NAME, user_id="ada", session_id="short", ttl="30m")
    answer = await say("Session report, please", session="short")
    assert "session short of ada" in answer
    assert "2 events" in answer, "the question and the call of the tool"
    assert BACKEND_TITLE in answer
    assert "expires in 29m" in answer or "expires in 30m" in answer

    await service.create_session(app_name=APP_NAME, user_id="ada", session_id="long", ttl=0)
    assert "never expires" in await say("How long do you remember?", session="long")


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
def test_the_offline_model_understands(
    message: str, tool: str | None, arguments: dict[str, str]
) -> None:
    found, given = offline_model.understand(message)
    assert found == tool
    assert given | arguments == given


async def answers(contents: list[types.Content], *, stream: bool = False) -> list[Any]:
    """Ask the offline model alone, with no tools at hand."""
    request = LlmRequest(contents=contents)
    return [part async for part in OfflineModel().generate_content_async(request, stream)]


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
async def test_the_offline_model_answers_whatever_it_gets(contents: list[types.Content]) -> None:
    (answer,) = await answers(contents)
    assert answer.content.parts[0].text.startswith(LABEL)


async def test_a_streamed_answer_ends_with_the_whole_of_it() -> None:
    *words, whole = await answers(
        [types.Content(role="user", parts=[types.Part(text="hello")])], stream=True
    )
    assert all(word.partial for word in words)
    assert not whole.partial
    assert "".join(word.content.parts[0].text for word in words) == whole.content.parts[0].text


def test_gemini_answers_where_there_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENTERPRISE", "VERTEXAI"):
        monkeypatch.delenv(f"GOOGLE_GENAI_USE_{name}", raising=False)
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "MODEL"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(model(), OfflineModel)

    monkeypatch.setenv("GEMINI_API_KEY", "not-a-real-key")
    assert model() == DEFAULT_MODEL
    monkeypatch.setenv("MODEL", "gemini-of-tomorrow")
    assert model() == "gemini-of-tomorrow"
    monkeypatch.setenv("MODEL", "offline")
    assert isinstance(model(), OfflineModel), "as the demo and the tests want it"

    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.delenv("MODEL")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    assert model() == DEFAULT_MODEL


def test_the_agent_can_be_described_to_a_model() -> None:
    assert root_agent.name == APP_NAME
    tools = {getattr(tool, "__name__", "") for tool in root_agent.tools}
    assert tools == {"remember", "recall", "session_report"}
    assert json.dumps(root_agent.description)
