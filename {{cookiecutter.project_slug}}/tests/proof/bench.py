"""`make bench` measures this project's sessions on its own server and network.

It calls the session service as ADK does, with typical conversations. It writes to a namespace of its
own on the server and removes it afterwards.
"""

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from itertools import chain, count, islice
from statistics import median, quantiles
from typing import Any

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.sessions.session import Session
from google.genai import types
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.errors import SessionStoreError

from ..servers import namespace

APP, USER = "bench", "user"
LENGTHS = (10, 100, 1_000)
WRITERS, LISTED, RECENT = 32, 50, 20
REPEAT = 200
IMAGE_EVERY, IMAGE_BYTES = 200, 100_000
PROSE = (
    "the order was sent on Tuesday and should be with you by the end of this week; if it is not"
    " please tell us which of the two addresses the parcel went to, so that we can ask the carrier"
)


def conversation(seed: int = 0) -> Iterator[Event]:
    """Yield the events of an endless conversation: questions, tool calls, results, answers.

    Texts have about a hundred characters, results set state, and one event in 200 has an image.
    """
    dice = random.Random(seed)
    for number in count():
        step = number % 4
        author = "user" if step == 0 else "assistant"
        delta: dict[str, Any] = {}
        if number % IMAGE_EVERY == IMAGE_EVERY - 1:
            image = types.Blob(data=dice.randbytes(IMAGE_BYTES), mime_type="image/png")
            parts = [types.Part(text=text(dice, 8)), types.Part(inline_data=image)]
        elif step == 1:
            arguments = {
                "query": text(dice, 6),
                "limit": 10,
                "filters": {"status": ["open", "new"]},
            }
            call = types.FunctionCall(id=f"call-{number}", name="search_orders", args=arguments)
            parts = [types.Part(function_call=call)]
        elif step == 2:
            rows = [
                {"id": dice.randrange(10**6), "title": text(dice, 8), "price": dice.random()}
                for _ in range(5)
            ]
            result = types.FunctionResponse(
                id=f"call-{number - 1}", name="search_orders", response={"rows": rows}
            )
            parts = [types.Part(function_response=result)]
            delta = {"last_search": rows[0], f"seen_{dice.randrange(10)}": number}
            if number % 20 == 2:
                delta["user:searches"] = number
        else:
            parts = [types.Part(text=text(dice, dice.randrange(20, 120)))]
        yield Event(
            id=f"{seed:x}-{number:x}-{dice.randrange(16**8):08x}",
            invocation_id=f"e-{number // 4}",
            author=author,
            timestamp=1_750_000_000.0 + number,
            content=types.Content(role="user" if author == "user" else "model", parts=parts),
            actions=EventActions(state_delta=delta),
        )


def text(dice: random.Random, words: int) -> str:
    """Return a text of some words."""
    return " ".join(dice.choices(PROSE.split(), k=words))


async def fill(service: BaseSessionService, session_id: str, events: int) -> Session:
    """Create a session with this many events."""
    session = await service.create_session(app_name=APP, user_id=USER, session_id=session_id)
    for event in islice(conversation(), events):
        await service.append_event(session, event)
    return session


async def timed(call: Callable[[], Awaitable[object]], times: int = REPEAT) -> list[float]:
    """Return the seconds that each call took. The first call is a warm-up and is not counted."""
    await call()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - start)
    return seconds


async def measurements(uri: str) -> AsyncIterator[tuple[str, list[float]]]:
    """Yield the name of each measurement and the seconds of its calls."""
    service, cold = create_session_service(uri), create_session_service(uri, cache_mb=0)
    async with service, cold:
        for length in LENGTHS:
            session = await fill(service, f"of {length}", length)
            name: dict[str, Any] = {"app_name": APP, "user_id": USER, "session_id": session.id}
            size = f"{length:,} events"
            first, next_ = partial(cold.get_session, **name), partial(service.get_session, **name)
            yield f"first read, {size}", await timed(first, max(5, REPEAT * 10 // length))
            yield f"next read, {size}", await timed(next_)
            recent = partial(first, config=GetSessionConfig(num_recent_events=RECENT))
            yield f"last {RECENT} of {size}", await timed(recent)
            yield f"append, {size}", await timed(appending(service, session))
        for number in range(LISTED - len(LENGTHS)):
            await fill(service, f"listed {number}", 0)
        list_ = partial(service.list_sessions, app_name=APP, user_id=USER)
        yield f"list {LISTED} sessions", await timed(list_)
        sessions = [await fill(service, f"written {number}", 0) for number in range(WRITERS)]
        start = time.perf_counter()
        writers = (timed(appending(service, session)) for session in sessions)
        seconds = list(chain.from_iterable(await asyncio.gather(*writers)))
        rate = len(seconds) / (time.perf_counter() - start)
        yield f"append, {WRITERS} writers at once: {rate:,.0f} a second", seconds


def appending(service: BaseSessionService, session: Session) -> Callable[[], Awaitable[object]]:
    """Return a function that appends the next event of a conversation."""
    events = conversation(seed=1)
    return lambda: service.append_event(session, next(events))


async def measure(uri: str, console: Console) -> Table:
    """Measure everything, with a progress bar."""
    table = Table("", "median ms", "p99 ms", "times", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Measuring", total=4 * len(LENGTHS) + 2)
        async for what, seconds in measurements(uri):
            p99 = quantiles(seconds, n=100, method="inclusive")[-1]
            table.add_row(
                what, *(f"{1000 * s:.2f}" for s in (median(seconds), p99)), str(len(seconds))
            )
            progress.advance(task)
    return table


def main() -> None:
    """Measure on the server of SESSION_SERVICE_URI, which `tests.servers` sets, and print a table."""
    console = Console(stderr=True)
    server = os.environ["SESSION_SERVICE_URI"]
    try:
        console.print(create_session_service(server).description, soft_wrap=True)
        with namespace(server) as uri:
            Console().print(asyncio.run(measure(uri, console)))
    except SessionStoreError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
