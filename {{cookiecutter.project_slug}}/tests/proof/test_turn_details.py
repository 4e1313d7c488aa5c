"""Turns: their leases, the tasks that drive a run, agents below the root, and summaries."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextvars import Context
from dataclasses import replace
from functools import partial

import pytest
from google.adk.agents import BaseAgent, LlmAgent, ParallelAgent, SequentialAgent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.apps import App
from google.adk.errors import StaleSessionError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions, EventCompaction
from google.adk.runners import Runner
from google.genai import types

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.plugin import OneTurnAtATime
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.session import PersistentSession
from {{ cookiecutter.__package }}.sessions.store import SessionKey
from {{ cookiecutter.__package }}.sessions.turns import LEASES

from ..sessions import test_turns as turns
from ..sessions.support import APP, SESSION, USER, create, event, get, texts, until, with_options
from ..sessions.test_turns import Gate, runner, say

gate = turns.gate


class Waiting(BaseAgent):
    """An agent that waits until it is cancelled."""

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        await asyncio.Event().wait()
        yield Event(author=self.name)


class Escalating(BaseAgent):
    """An agent that ends the agents beside it."""

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        yield Event(author=self.name, actions=EventActions(escalate=True))


def summary() -> Event:
    """Return what ADK appends when it compacts a session."""
    content = types.Content(role="model", parts=[types.Part(text="summary")])
    compaction = EventCompaction(start_timestamp=0, end_timestamp=1, compacted_content=content)
    return Event(author="user", actions=EventActions(compaction=compaction))


async def test_run_may_be_driven_by_several_tasks(service: PersistentSessionService) -> None:
    """Python 3.11's `asyncio.wait_for` is one of those that wait for each event in a task of its own."""
    one = runner(service)
    message = types.Content(role="user", parts=[types.Part(text="message 0")])
    run = one.run_async(user_id=USER, session_id=SESSION, new_message=message)

    async def step() -> None:
        await anext(run)

    await asyncio.create_task(step())
    [queue] = service.turns._queues.values()
    second = asyncio.create_task(say(one, "message 1"), context=Context())
    await until(lambda: len(queue) == 2)
    async for _ in run:
        pass
    assert await second == "3: message 1"


async def test_agent_that_is_cancelled_by_another_does_not_end_the_turn(
    service: PersistentSessionService,
) -> None:
    both = ParallelAgent(name="both", sub_agents=[Waiting(name="waits"), Escalating(name="goes")])
    root = SequentialAgent(name="root", sub_agents=[both, LlmAgent(name="last", model=Gate())])
    app = App(name=APP, root_agent=root, plugins=[OneTurnAtATime()])
    one = Runner(app=app, session_service=service, auto_create_session=True)
    first = asyncio.create_task(say(one, "hold"))
    await turns.entered.wait()
    [queue] = service.turns._queues.values()
    assert [turn.ended for turn in queue] == [False]
    turns.opened.set()
    assert (await first).endswith(": hold")


async def test_agent_may_run_within_the_turn_of_a_block(service: PersistentSessionService) -> None:
    session = await create(service)
    assert isinstance(session, PersistentSession)
    async with service.turn(session):
        assert await say(runner(service), "hello") == "1: hello"
        assert session.turn
    assert session.turn is None


async def test_expired_lease_is_taken_again_if_it_is_free(uri: str) -> None:
    """A busy machine that renews its lease too late fails no turn, unless another turn has begun."""
    async with create_session_service(uri) as service, create_session_service(uri) as other:
        session = await create(service)
        assert isinstance(session, PersistentSession)
        turn = await service.begin_turn(session)
        assert turn

        async def expire() -> None:
            turn.valid_until = 0.0
            await service.store.release(
                replace(session.head.key, app_name=f"{LEASES}{APP}"), holder=turn.holder
            )

        await expire()
        await service.append_event(session, event("stored"))
        assert not turn.lost
        await expire()
        copy = await get(other)
        assert isinstance(copy, PersistentSession)
        async with other.turn(copy):
            with pytest.raises(StaleSessionError, match="longer than its lease"):
                await service.append_event(session, event("late"))
        assert texts(await get(service)) == ["stored"]


async def test_long_turn_renews_its_lease(uri: str) -> None:
    async with create_session_service(with_options(uri, "turn_lease=1")) as service:
        session = await create(service)
        assert isinstance(session, PersistentSession)
        turn = await service.begin_turn(session)
        assert turn
        first_end = turn.valid_until
        await until(lambda: turn.valid_until > first_end + 1)  # the turn outlasts its first lease
        assert not turn.lost
        await service.append_event(session, event("in time"))


async def test_summary_is_stored_during_the_next_turn(
    service: PersistentSessionService,
) -> None:
    """ADK compacts a session after the answer, through the session object of that turn."""
    one = runner(service)
    await say(one, "first")
    session = await get(service)
    turns.entered.clear()
    task = asyncio.create_task(say(one, "hold"))
    await turns.entered.wait()
    stored = summary()
    append = asyncio.create_task(service.append_event(session, stored))
    await asyncio.sleep(0)
    turns.opened.set()
    assert await task == "3: hold"
    await append
    assert [said.id for said in (await get(service)).events][-1] == stored.id


async def test_summary_of_a_deleted_session_is_stale(service: PersistentSessionService) -> None:
    """ADK goes on without a stale summary. Another error would fail a message that is answered."""
    session = await create(service)
    await service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
    with pytest.raises(StaleSessionError, match="A summary is not stored"):
        await service.append_event(session, summary())


async def test_tool_may_run_the_agent_in_its_own_session(
    service: PersistentSessionService,
) -> None:
    """Code within a turn does not wait for its own turn."""
    one = runner(service)
    session = await create(service)
    assert isinstance(session, PersistentSession)
    async with service.turn(session):
        assert await asyncio.create_task(say(one, "from within")) == "1: from within"


async def test_lease_has_one_holder_until_it_expires(service: PersistentSessionService) -> None:
    lease = partial(service.store.lease, SessionKey("leases", USER, SESSION), ttl=10)
    now = time.time()
    assert await lease(holder="one", now=now)
    assert not await lease(holder="two", now=now + 9)
    assert await lease(holder="one", now=now + 9), "the holder may extend it"
    assert not await lease(holder="two", now=now + 18)
    assert await lease(holder="two", now=now + 20)
    assert not await lease(holder="one", now=now + 20)
    await service.store.release(SessionKey("leases", USER, SESSION), holder="two")
    assert await lease(holder="one", now=now + 20)


async def test_leases_are_not_listed(service: PersistentSessionService) -> None:
    session = await create(service)
    assert isinstance(session, PersistentSession)
    async with service.turn(session):
        listed = (await service.list_sessions(app_name=APP)).sessions
        assert [found.id for found in listed] == [SESSION]
    with pytest.raises(ValueError, match="reserved"):
        await create(service, app_name="\x1fturns\x1fapp")
