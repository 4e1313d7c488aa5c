"""One contestant in a process of its own, with a garbage collector and caches of its own.

The Python of a baked project runs this, in the project's folder. What is measured is prepared first and
then called by its name and its number: ("turn", 1000) is a turn of a session of 1,000 events.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import json
import logging
import math
import os
import platform
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path
from random import Random
from secrets import token_hex, token_urlsafe
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig
from google.adk.apps.app import App
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

from .child import private_output, serve
from .contestants import Rival, contestants_of, open_rival
from .conversation import conversation, text

APP, USER, LISTER = "bench", "user", "lister"
ENCRYPTED_APP = "bench_encrypted"
"""Others could not read its sessions and state."""
LISTED, RECENT, WRITERS = 50, 20, 32
PACKAGES = ("google-adk", "pydantic", "redis", "asyncpg", "pymongo", "aiobotocore", "sqlalchemy")

Call = Callable[[], Awaitable[object]]


class AtOnce(BaseLlm):  # type: ignore[misc]
    """A model that answers at once, always the same."""

    model: str = "at-once"

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """Yield the answer."""
        usage = types.GenerateContentResponseUsageMetadata(
            prompt_token_count=1_000, candidates_token_count=100, total_token_count=1_100
        )
        content = types.Content(role="model", parts=[types.Part(text=ANSWER)])
        yield LlmResponse(content=content, usage_metadata=usage)


QUESTION, ANSWER = text(Random(1), 30), text(Random(2), 70)


class Worker:
    """A session service, and what can be asked of it."""

    def __init__(
        self,
        backend: str,
        uri: str,
        rival: Rival,
        *,
        own: bool,
        recent: int | None,
        plugins: list[Any],
        app_name: str = APP,
    ) -> None:
        """Make a runner with a model that answers at once."""
        self.own, self.backend, self.uri, self.app_name = own, backend, uri, app_name
        self.adk = contestants_of(backend)
        self.service, self.fill = rival
        self.corner = token_hex(4)
        """Begins the names of sessions that this worker writes: others share its store."""
        agent = LlmAgent(name="assistant", model=AtOnce(), instruction="Answer briefly.")
        app = App(name=app_name, root_agent=agent, plugins=plugins)
        self.runner = Runner(app=app, session_service=self.service)
        read = GetSessionConfig(num_recent_events=recent) if recent else None
        self.config = RunConfig(get_session_config=read)
        self.calls: dict[tuple[str, int], Call] = {}
        self.profiler: cProfile.Profile | None = None

    # What is prepared

    async def prepare_turn(self, events: int, calls: int) -> None:
        """Make sessions for so many turns, so that none grows by more than a tenth, or four events.

        The last turn of each has been held here already, as in the middle of a conversation.
        """
        each = max(2, events // 20)
        filled = (events - 2) // 4 * 4  # whole turns of the conversation
        names = [f"{self.corner} {events} {number}" for number in range(math.ceil(calls / each))]
        for name in names:
            await self.session(name, filled)
            for _ in range((events - filled) // 2):
                await self.turn(name)
        asked = iter([name for name in names for _ in range(each)])
        self.calls["turn", events] = lambda: self.turn(next(asked))

    async def prepare_append(self, events: int, calls: int) -> None:
        """Do the same for appends: no session grows by more than a tenth, or three events."""
        each, new = max(3, events // 10), conversation(1)
        pairs = []
        for number in range(math.ceil(calls / each)):
            session = await self.session(f"{self.corner} append {events} {number}", events)
            pairs += [(session, event) for event in islice(new, each)]
        left = iter(pairs)
        self.calls["append", events] = lambda: self.service.append_event(*next(left))

    async def prepare_read(self, events: int, calls: int) -> None:
        """Make a session that is read whole or from its last 20 events on, unless it is there."""
        name = f"read {events}"
        if not await self.service.get_session(**self.called(name)):
            await self.session(name, events)
        recent = GetSessionConfig(num_recent_events=RECENT)
        read = partial(self.service.get_session, **self.called(name))
        self.calls["read", events] = read
        self.calls["last 20", events] = partial(read, config=recent)

    async def prepare_list(self, first: int, last: int) -> None:
        """Make what is listed, and let other users' sessions grow from `first` to `last`."""
        state = {"topic": "orders", "seen": 7, "last_search": {"id": 1, "title": "the order"}}
        if not first:
            for number in range(LISTED):
                await self.service.create_session(**self.called(f"{number}", LISTER), state=state)
        numbers = iter(range(first, last))

        async def create() -> None:
            for number in numbers:
                await self.service.create_session(
                    app_name=self.app_name, user_id=f"other {number // 10}"
                )

        # ADK's own service for SQLite gives up on a locked file if several write at once.
        await asyncio.gather(*(create() for _ in range(WRITERS if self.own else 1)))
        listed = partial(self.service.list_sessions, app_name=self.app_name, user_id=LISTER)
        self.calls["list", last] = listed

    # What is measured

    async def measure(self, what: str, x: int, times: int) -> dict[str, list[float]]:
        """Return the seconds of each call, on the clock and of this process's CPU."""
        call = self.calls[what, x]
        seconds, cpu = [], []
        for _ in range(times):
            start, used = time.perf_counter(), time.process_time()
            with self.profiler or nullcontext():
                await call()
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
        return {"seconds": seconds, "cpu": cpu}

    async def blocked(self, what: str, x: int, times: int) -> list[float]:
        """Return for how many seconds a ticking task had to wait at most, call by call."""
        gaps: list[float] = []

        async def tick() -> None:
            last = time.perf_counter()
            while True:
                await asyncio.sleep(0)
                now = time.perf_counter()
                gaps.append(now - last)
                last = now

        ticker = asyncio.create_task(tick())
        worst = []
        for _ in range(times):
            await asyncio.sleep(0)
            gaps.clear()
            found = await self.calls[what, x]()
            await asyncio.sleep(0)
            worst.append(max(gaps))
            del found  # the call does not pay for forgetting what it returned
        ticker.cancel()
        return worst

    async def writers(self, seconds: float) -> float:
        """Return how many appends a second 32 tasks get done, each to its own session."""
        made = list(islice(conversation(1, images=False), 400))
        sessions = [await self.session(f"{self.corner} {token_hex(8)}", 10) for _ in range(WRITERS)]
        done, start = 0, time.perf_counter()

        async def write(session: Any, events: Iterator[Any]) -> None:
            nonlocal done
            while time.perf_counter() < start + seconds:
                event = next(events).model_copy(update={"id": token_hex(8)})
                try:
                    await self.service.append_event(session, event)
                except Exception:
                    if self.own:
                        raise
                else:  # ADK's own may fail under load, which counts for nothing
                    done += 1

        await asyncio.gather(*(write(session, cycle(made)) for session in sessions))
        return done / (time.perf_counter() - start)

    async def memory(self) -> float | None:
        """Return the MB of memory that this process has in use, where the system says so."""
        gc.collect()
        status = Path("/proc/self/status")
        if not status.exists():
            return None
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    async def about(self) -> dict[str, Any]:
        """Return the server's version, and those of what is installed here, as far as they matter."""
        versions = {"python": platform.python_version()}
        for name in PACKAGES:
            with suppress(PackageNotFoundError):
                versions[name] = version(name)
        server = await self.adk.version(self.uri) if self.adk else self.backend
        return {"server": server, "versions": versions}

    async def stored_bytes(self) -> int | None:
        """Return how many bytes the server holds in all."""
        return await self.adk.stored_bytes(self.uri) if self.adk else None

    async def close(self) -> None:
        """Close the service."""
        if close := getattr(self.service, "close", None):
            await close()

    # How

    async def session(self, name: str, events: int) -> Any:
        """Create a session that has had so many events, and return it as if it had just been read."""
        session = await self.service.create_session(**self.called(name))
        had = list(islice(conversation(), events))
        if self.fill and len(had) > 20:
            await self.fill(session, had[:-1])
            session = await self.service.get_session(**self.called(name))
            had = had[-1:]
        for event in had:
            await self.service.append_event(session, event)
        return session

    def called(self, session_id: str, user_id: str = USER) -> dict[str, str]:
        """Return how a session is called."""
        return {"app_name": self.app_name, "user_id": user_id, "session_id": session_id}

    async def turn(self, name: str) -> None:
        """Say something in a session and wait for the answer."""
        message = types.Content(role="user", parts=[types.Part(text=QUESTION)])
        events = [
            event
            async for event in self.runner.run_async(
                user_id=USER, session_id=name, new_message=message, run_config=self.config
            )
        ]
        assert events[-1].content.parts[0].text == ANSWER, events[-1]


def turn_plugins() -> list[Any]:
    """Return the plugins that the project's own App gives its runners, such as one turn at a time."""
    app = getattr(import_module("my_agent.agent"), "app", None)
    return list(app.plugins) if app else []


async def run(backend: str, uri: str, kind: dict[str, Any], say: Callable[[Any], None]) -> None:
    """Open a service, and do what is asked until standard input ends."""
    rival: Rival
    if name := kind.get("rival"):
        rival, plugins = await open_rival(name, backend, uri), []
    else:
        options = kind.get("options", {})
        if kind.get("encrypted"):
            os.environ["SESSION_KEYS"] = token_urlsafe(32)
        try:
            service = import_module("my_agent.sessions").create_session_service(uri, **options)
        except Exception as error:
            if not options:
                raise
            say({"refused": str(error)})  # a version of the project that has no such option
            return
        rival, plugins = (service, None), turn_plugins()
    worker = Worker(
        backend,
        uri,
        rival,
        own=not name,
        recent=kind.get("recent"),
        plugins=plugins,
        app_name=ENCRYPTED_APP if kind.get("encrypted") else APP,
    )
    worker.profiler = cProfile.Profile() if kind.get("profile") else None
    say({"opened": True})
    try:
        await serve(worker, say)
    finally:
        await worker.close()
        if worker.profiler:
            worker.profiler.dump_stats(kind["profile"])


def main() -> None:
    """Take the backend, the session URI and the kind of contestant from the command line."""
    say = private_output()
    logging.basicConfig(level=logging.ERROR)
    backend, uri, kind = sys.argv[1:]
    asyncio.run(run(backend, uri, json.loads(kind), say))


if __name__ == "__main__":
    main()
