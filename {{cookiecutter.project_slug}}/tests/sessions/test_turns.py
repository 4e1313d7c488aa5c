"""One turn at a time: concurrent messages to a session are answered one after the other."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from contextvars import Context
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.errors import StaleSessionError
from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.genai import types

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.errors import ConfigurationError
from {{ cookiecutter.__package }}.sessions.plugin import OneTurnAtATime
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.session import PersistentSession

from .support import APP, SESSION, USER, create, event, get, texts, until, with_options


class Gate(BaseLlm):
    """A model that waits for `opened` before it answers `hold`."""

    model: str = "gate"

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """Echo the last message after the number of texts seen. Fail at `fail`."""
        said = [part.text for content in llm_request.contents for part in content.parts or []]
        entered.set()
        if said[-1] == "hold":
            await opened.wait()
        if said[-1] == "fail":
            raise ValueError("as asked for")
        answer = types.Part(text=f"{len(said)}: {said[-1]}")
        yield LlmResponse(content=types.Content(role="model", parts=[answer]))


entered = asyncio.Event()
opened = asyncio.Event()


@pytest.fixture(autouse=True)
def gate() -> None:
    """Close the gate. Events belong to the event loop of their test."""
    global entered, opened
    entered, opened = asyncio.Event(), asyncio.Event()


def runner(service: PersistentSessionService, **options: Any) -> Runner:
    """Return a Runner whose agent uses the gate."""
    agent = LlmAgent(name="agent", model=Gate())
    app = App(name=APP, root_agent=agent, plugins=[OneTurnAtATime()])
    return Runner(app=app, session_service=service, auto_create_session=True, **options)


async def say(runner: Runner, text: str) -> str:
    """Send a message to the agent and return its answer."""
    message = types.Content(role="user", parts=[types.Part(text=text)])
    answer = ""
    async for said in runner.run_async(user_id=USER, session_id=SESSION, new_message=message):
        answer = (said.content and said.content.parts and said.content.parts[0].text) or answer
    return answer


@pytest.fixture
async def other(uri: str) -> AsyncIterator[PersistentSessionService]:
    """A second service on the same database, like that of another process."""
    async with create_session_service(uri) as service:
        yield service


def assert_whole_turns(stored: list[str | None]) -> None:
    """Check that each of eight messages is followed by its answer, which saw all messages before."""
    questions = stored[::2]
    assert sorted(map(str, questions)) == [f"message {number}" for number in range(8)]
    assert stored[1::2] == [f"{2 * n + 1}: {question}" for n, question in enumerate(questions)]


async def test_concurrent_messages_are_all_answered(service: PersistentSessionService) -> None:
    """They are the first of their session: one of them creates it."""
    one = runner(service)
    answers = await asyncio.gather(*(say(one, f"message {number}") for number in range(8)))
    stored = texts(await get(service))
    assert_whole_turns(stored)
    assert sorted(answers) == sorted(map(str, stored[1::2]))


async def test_messages_are_answered_in_order_of_arrival(
    service: PersistentSessionService,
) -> None:
    one = runner(service)
    session = await create(service)
    assert isinstance(session, PersistentSession)
    async with service.turn(session):
        [queue] = service.turns._queues.values()
        tasks = []
        for number in range(8):
            tasks.append(asyncio.create_task(say(one, f"message {number}"), context=Context()))
            await until(lambda: len(queue) == 1 + len(tasks))
    await asyncio.gather(*tasks)
    stored = texts(await get(service))
    assert stored[::2] == [f"message {number}" for number in range(8)]


async def test_turns_hold_across_processes(
    service: PersistentSessionService, other: PersistentSessionService
) -> None:
    both = [runner(service), runner(other)]
    await asyncio.gather(*(say(both[n % 2], f"message {n}") for n in range(8)))
    assert_whole_turns(texts(await get(service)))


@pytest.mark.parametrize("ending", ["answer", "error", "cancel", "timeout", "close", "break"])
async def test_turn_ends_immediately(
    service: PersistentSessionService, other: PersistentSessionService, ending: str
) -> None:
    one = runner(service)
    if ending == "error":
        with pytest.raises(ValueError, match="as asked for"):
            await say(one, "fail")
    elif ending == "answer":
        await say(one, "hello")
    elif ending == "cancel":
        task = asyncio.create_task(say(one, "hold"))
        await entered.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    elif ending == "timeout":
        with pytest.raises(TimeoutError):
            await say_until_entered(one, "hold")
    else:
        await leave(one, closing=ending == "close")
    async with asyncio.timeout(10):  # the lease is 15 s
        assert (await say(runner(other), "next")).endswith(": next")


async def say_until_entered(one: Runner, text: str) -> None:
    """Send a message with a time limit that expires as soon as the model is called."""

    async def expire() -> None:
        await entered.wait()
        limit.reschedule(0)

    async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:
        group.create_task(expire())
        await say(one, text)


async def leave(one: Runner, *, closing: bool) -> None:
    """Stop after the first event, with or without closing the generator."""
    message = types.Content(role="user", parts=[types.Part(text="hello")])
    said = one.run_async(user_id=USER, session_id=SESSION, new_message=message)
    if closing:
        async with aclosing(said):
            await anext(said)
        return
    async for _ in said:
        break


async def test_message_is_refused_after_turn_wait(uri: str) -> None:
    async with create_session_service(with_options(uri, "turn_wait=0.2")) as service:
        one = runner(service)
        task = asyncio.create_task(say(one, "hold"))
        await entered.wait()
        with pytest.raises(RuntimeError, match=r"was busy for 0\.2 s with earlier messages"):
            await say(one, "impatient")
        opened.set()
        assert await task == "1: hold"
        assert texts(await get(service)) == ["hold", "1: hold"]


async def test_turn_of_a_killed_process_ends_with_its_lease(uri: str) -> None:
    async with create_session_service(with_options(uri, "turn_lease=1")) as service:
        session = await create(service)
        assert isinstance(session, PersistentSession)
        turn = await service.begin_turn(session)
        assert turn
        await service.append_event(session, event("question"))
        assert turn.renewal
        turn.renewal.cancel()  # a killed process renews nothing
        async with create_session_service(with_options(uri, "turn_lease=1")) as other:
            assert await say(runner(other), "next") == "2: next"
        assert turn.lost
        with pytest.raises(StaleSessionError, match="has changed since"):
            await service.append_event(session, event("late"))
        assert texts(await get(service)) == ["question", "next", "2: next"]


@pytest.mark.parametrize("mode", ["process", "off"])
async def test_turns_can_be_limited_to_the_process_or_turned_off(uri: str, mode: str) -> None:
    async with create_session_service(with_options(uri, f"turns={mode}")) as service:
        session = await create(service)
        assert isinstance(session, PersistentSession)
        turn = await service.begin_turn(session)
        assert (turn is None) == (mode == "off")
        assert turn is None or not turn.leased
    with pytest.raises(ConfigurationError, match="write one of on, process, off"):
        create_session_service(with_options(uri, "turns=sometimes"))
