"""Concurrent messages to several servers: all are answered, turns do not interleave, kills lose nothing.

The servers are processes on one store. Every message sets its own state key, which shows whether it was
stored.
"""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.apps.app import EventsCompactionConfig
from google.adk.apps.base_events_summarizer import BaseEventsSummarizer
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions, EventCompaction
from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.genai import types

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.plugin import OneTurnAtATime
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.session import PersistentSession

from ..sessions.programs import AGENTS, PYTHON, Server, message
from ..sessions.support import APP, SESSION, USER, create, get, until, with_options
from .figures import Figure, repetitions

SERVE = [*PYTHON, "serve", str(AGENTS)]
LEASE = 3
"""Seconds. Short, because the next message waits this long after a server was killed."""


async def test_task_keeps_no_callback_of_a_turn_that_ended(
    service: PersistentSessionService,
) -> None:
    """A task that holds turns for days must not grow."""
    session = await create(service)
    assert isinstance(session, PersistentSession)
    task = asyncio.current_task()
    await service.begin_turn(session)
    assert "Turn.task_done" in repr(task)
    await service.end_turn(session)
    assert "Turn.task_done" not in repr(task)


def note(key: str) -> str:
    """Return a message that sets a key of the state."""
    return f"note {json.dumps({'key': key, 'value': key})}"


async def stored(uri: str, user: str) -> PersistentSession:
    """Return the stored session of a user."""
    async with create_session_service(uri) as service:
        session = await service.get_session(app_name="noter", user_id=user, session_id=SESSION)
        assert session is not None
        return session


def turns_of(session: PersistentSession) -> list[list[Event]]:
    """Return the events of each turn, and check that turns are not interleaved."""
    turns: list[list[Event]] = []
    for event in session.events:
        if not turns or turns[-1][0].invocation_id != event.invocation_id:
            turns.append([])
        turns[-1].append(event)
    ids = [turn[0].invocation_id for turn in turns]
    assert len(ids) == len(set(ids)), "turns are interleaved"
    return turns


def text_of(event: Event) -> str:
    """Return the text of an event."""
    parts = (event.content.parts if event.content else None) or []
    return parts[0].text or "" if parts else ""


async def send(client: httpx.AsyncClient, user: str, text: str) -> httpx.Response:
    """Send a message to a server."""
    return await client.post("/run", json=message(SESSION, text, user=user))


def client_of(server: Server) -> httpx.AsyncClient:
    """Return a client that sends many messages to a server at the same time."""
    limits = httpx.Limits(max_connections=None)
    url = server.http.base_url
    return httpx.AsyncClient(base_url=url, timeout=120, limits=limits, trust_env=False)


async def test_concurrent_messages_to_two_servers_are_all_answered(
    uri: str, tmp_path: Path, figure: Figure
) -> None:
    users, messages = [f"user {n}" for n in range(4)], 8
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(SERVE, uri, tmp_path / name)) for name in "ab"]
        for server in servers:
            await asyncio.to_thread(server.ready)
        async with create_session_service(uri) as service:
            for user in users:
                await service.create_session(app_name="noter", user_id=user, session_id=SESSION)
        async with client_of(servers[0]) as one, client_of(servers[1]) as other:
            clients = (one, other)
            responses = await asyncio.gather(
                *(
                    send(clients[number % 2], user, note(f"key {number}"))
                    for number in range(messages)
                    for user in users
                )
            )
    assert [response.status_code for response in responses] == [200] * len(users) * messages
    for user in users:
        session = await stored(uri, user)
        keys = [f"key {number}" for number in range(messages)]
        assert session.state == dict(zip(keys, keys, strict=True))
        turns = turns_of(session)
        assert sorted(text_of(turn[0]) for turn in turns) == sorted(map(note, keys))
        assert [len(turn) for turn in turns] == [4] * messages, "message, call, result, answer"
    figure("messages", len(responses))


async def test_kills_neither_lose_nor_duplicate_acknowledged_turns(
    uri: str, tmp_path: Path, figure: Figure
) -> None:
    """Clients repeat a message until it is answered, while one server is killed again and again."""
    kills = repetitions(100, 3)
    served = with_options(uri, f"turn_lease={LEASE}")
    users, acknowledged = [f"user {n}" for n in range(4)], Counter[str]()
    done = asyncio.Event()
    waits = [0.0]
    async with create_session_service(uri) as service:
        for user in users:
            await service.create_session(app_name="noter", user_id=user, session_id=SESSION)
    with ExitStack() as stack:
        steady = stack.enter_context(Server(SERVE, served, tmp_path / "steady"))
        doomed = [Server(SERVE, served, tmp_path / "doomed 0")]
        stack.callback(lambda: doomed[-1].kill())

        async def talk(user: str) -> None:
            number = 0
            while not done.is_set():
                number += 1
                while True:
                    server = doomed[-1] if number % 2 else steady
                    started = time.monotonic()
                    async with client_of(server) as client:
                        try:
                            response = await send(client, user, note(f"key {number}"))
                        except httpx.HTTPError:
                            await asyncio.sleep(0.05)
                            continue
                    assert response.status_code == 200, response.text
                    acknowledged[user] = number
                    waits.append(time.monotonic() - started)
                    break

        async def kill() -> None:
            try:
                for number in range(1, kills + 1):
                    before = acknowledged.total()
                    await asyncio.to_thread(doomed[-1].ready)
                    await until(lambda: acknowledged.total() > before)  # noqa: B023
                    await asyncio.to_thread(doomed[-1].kill)
                    doomed.append(Server(SERVE, served, tmp_path / f"doomed {number}"))
                await asyncio.to_thread(doomed[-1].ready)
            finally:
                done.set()

        await asyncio.to_thread(steady.ready)
        await asyncio.gather(kill(), *map(talk, users))
    for user in users:
        session = await stored(uri, user)
        answered = Counter(text_of(turn[0]) for turn in turns_of(session) if len(turn) == 4)
        for number in range(1, acknowledged[user] + 1):
            assert answered[note(f"key {number}")] >= 1
            assert session.state[f"key {number}"] == f"key {number}"
    figure("kills", kills)
    figure("lease, ms", 1_000 * LEASE)
    figure("longest answer, ms", round(1_000 * max(waits)))
    figure("acknowledged", acknowledged.total())


async def test_frozen_server_cannot_write_into_the_next_turn(uri: str, tmp_path: Path) -> None:
    served = with_options(uri, f"turn_lease={LEASE}")
    file = tmp_path / "held"
    with ExitStack() as stack:
        frozen, other = [
            stack.enter_context(Server(SERVE, served, tmp_path / name))
            for name in ("frozen", "other")
        ]
        await asyncio.to_thread(frozen.ready)
        await asyncio.to_thread(other.ready)
        async with create_session_service(uri) as service:
            await service.create_session(app_name="noter", user_id=USER, session_id=SESSION)
        async with client_of(frozen) as first, client_of(other) as second:
            held = f"hold {json.dumps({'path': str(file)})}"
            late = asyncio.create_task(send(first, USER, held))
            await until(file.exists)
            os.kill(frozen.process.pid, signal.SIGSTOP)
            assert (await send(second, USER, note("next"))).status_code == 200
            file.unlink()
            os.kill(frozen.process.pid, signal.SIGCONT)
            assert (await late).status_code != 200
    session = await stored(uri, USER)
    first_turn, next_turn = turns_of(session)
    assert text_of(next_turn[0]) == note("next")
    assert len(next_turn) == 4
    assert len(first_turn) == 2, "the message and the call that was held"


class Echo(BaseLlm):
    """A model that answers immediately."""

    model: str = "echo"

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """Answer every message with the same text."""
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text="answer")]))


class Slow(BaseEventsSummarizer):
    """A summarizer that takes until the next turn."""

    def __init__(self) -> None:
        self.summaries: list[str] = []

    async def maybe_summarize_events(self, *, events: Sequence[Event]) -> Event | None:
        """Return a summary with a known id."""
        for _ in range(20):
            await asyncio.sleep(0)
        content = types.Content(role="model", parts=[types.Part(text="summary")])
        compaction = EventCompaction(
            start_timestamp=events[0].timestamp,
            end_timestamp=events[-1].timestamp,
            compacted_content=content,
        )
        summary = Event(
            id=Event.new_id(), author="user", actions=EventActions(compaction=compaction)
        )
        self.summaries.append(summary.id)
        return summary


@pytest.fixture
async def service(uri: str) -> AsyncIterator[PersistentSessionService]:
    """A service without expiry."""
    async with create_session_service(uri, ttl=0) as service:
        yield service


async def test_every_summary_is_stored_during_the_next_turn(
    service: PersistentSessionService, figure: Figure
) -> None:
    turns, slow = repetitions(200, 20), Slow()
    app = App(
        name=APP,
        root_agent=LlmAgent(name="agent", model=Echo()),
        plugins=[OneTurnAtATime()],
        events_compaction_config=EventsCompactionConfig(
            summarizer=slow, compaction_interval=1, overlap_size=0
        ),
    )
    runner = Runner(app=app, session_service=service)
    await create(service)
    answered = asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def say(number: int) -> None:
        content = types.Content(role="user", parts=[types.Part(text=f"message {number}")])
        async for event in runner.run_async(user_id=USER, session_id=SESSION, new_message=content):
            if event.is_final_response():
                answered.set()

    for number in range(turns):
        answered.clear()
        tasks.append(asyncio.create_task(say(number)))
        await answered.wait()  # the summary is stored later
    await asyncio.gather(*tasks)
    session = await get(service)
    found = [event.id for event in session.events if event.actions.compaction]
    assert sorted(found) == sorted(slow.summaries)
    assert len(session.events) == 2 * turns + len(found)
    figure("summaries", len(found))
