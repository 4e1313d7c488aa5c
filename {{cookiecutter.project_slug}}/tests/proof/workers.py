"""Processes that work on the same sessions and can be killed.

They are forked from a server process that has imported everything (multiprocessing's `forkserver`), so a
new one takes milliseconds. Without fork, each starts from scratch.
"""

import asyncio
import multiprocessing
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event

from {{ cookiecutter.__package }}.sessions import config, create_session_service
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.session import PersistentSession

from ..sessions.support import APP, event
from .history import Answer, Attempt

Tell = Callable[[object], None]
"""Sends a value to the tests' process immediately."""

Stop = Callable[[], bool]
"""Returns whether the tests have asked the task to stop."""

Task = Callable[..., Coroutine[Any, Any, Any]]
"""A function of this module that a worker runs. It takes a service, `Tell`, `Stop` and arguments."""

create_session_service(config.DEFAULT_URI)  # loads the driver before the fork

START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class Worker:
    """A process with its own session service."""

    def __init__(self, uri: str) -> None:
        context: Any = multiprocessing.get_context(START)
        if START == "forkserver":
            context.set_forkserver_preload(["__main__", __name__])
        ours, theirs = context.Pipe()
        self._connection: Connection[Any, Any] = ours
        self._process = context.Process(target=_serve, args=(uri, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.told: list[Any] = []
        """The values that the running task has sent so far."""

    def start(self, task: Task, *arguments: object) -> None:
        """Start a task. `finish` waits for its result."""
        self.told = []
        self._connection.send((task, arguments))

    def wait_for(self, count: int) -> None:
        """Wait until the running task has sent this many values."""
        while len(self.told) < count:
            kind, value = self._connection.recv()
            assert kind == "told", f"a worker has ended early: {value}"
            self.told.append(value)

    def tells_more(self, count: int) -> None:
        """Wait until this many more values have arrived in the thread that waits for the end."""
        before = len(self.told)
        while len(self.told) < before + count:
            time.sleep(0.001)

    def finish(self) -> Any:
        """Wait for the end of the task and return its result."""
        while True:
            kind, value = self._connection.recv()
            if kind == "told":
                self.told.append(value)
            elif kind == "failed":
                raise AssertionError(f"a worker has failed: {value}")
            else:
                return value

    def ask_to_stop(self) -> None:
        """Ask the running task to stop."""
        self._connection.send(None)

    def kill(self) -> None:
        """Kill the process and receive the values that it has sent."""
        self._process.kill()
        self._process.join()
        with suppress(EOFError, OSError):
            while True:
                _, value = self._connection.recv()
                self.told.append(value)
        self._connection.close()


@contextmanager
def workers(uri: str, count: int) -> Iterator[list[Worker]]:
    """Run this many workers. They are killed in the end."""
    running = [Worker(uri) for _ in range(count)]
    try:
        yield running
    finally:
        for worker in running:
            with suppress(OSError):
                worker.kill()


def _serve(uri: str, connection: "Connection[Any, Any]") -> None:
    asyncio.run(_work(uri, connection))


async def _work(uri: str, connection: "Connection[Any, Any]") -> None:
    def tell(value: object) -> None:
        connection.send(("told", value))

    def stop() -> bool:
        return connection.poll() and connection.recv() is None

    async with create_session_service(uri) as service:
        with suppress(EOFError):
            while True:
                task, arguments = await asyncio.to_thread(connection.recv)
                try:
                    answer = "done", await task(service, tell, stop, *arguments)
                except Exception as error:
                    answer = "failed", repr(error)
                connection.send(answer)


# Tasks of workers.


async def count_up(
    service: PersistentSessionService, tell: Tell, stop: Stop, me: str, times: int, *owner: str
) -> None:
    """Read a counter, add one and append, until `times` appends were accepted. 0 means for ever.

    Each attempt is sent before the append and after it, so the tests know all acknowledged events
    if this process is killed.
    """
    user_id, session_id = owner
    accepted = 0
    while not stop() and (accepted < times or not times):
        session = await service.get_session(app_name=APP, user_id=user_id, session_id=session_id)
        if session is None:
            await asyncio.sleep(0)
            continue
        total = session.state.get("total", 0) + 1
        said = event(f"{me} {total}", timestamp=float(total), total=total)
        said.actions.state_delta |= {
            me: total,
            f"user:{me} {session_id}": total,
            f"app:{me} {user_id} {session_id}": total,
        }
        answer = await attempt(service, tell, session, said)
        accepted += answer is Answer.ACCEPTED


async def attempt(
    service: PersistentSessionService, tell: Tell, session: PersistentSession, said: Event
) -> Answer:
    """Append an event, and send the attempt before and after it."""
    position = session.position
    made = Attempt(said.id, position.incarnation, position.revision)
    tell(made)
    try:
        await service.append_event(session, said)
        answer = Answer.ACCEPTED
    except (StaleSessionError, SessionNotFoundError):
        answer = Answer.REFUSED
    tell(made.told(answer))
    return answer


async def keep_keys(
    service: PersistentSessionService, tell: Tell, stop: Stop, me: str, user_id: str, count: int
) -> None:
    """Set a new `user:` key and a new `app:` key with each event of a session of its own."""
    session = await service.create_session(app_name=APP, user_id=user_id, session_id=me)
    for number in range(count):
        said = event(f"{me} {number}")
        said.actions.state_delta = {f"user:{me} {number}": number, f"app:{me} {number}": number}
        await service.append_event(session, said)


async def create_all(
    service: PersistentSessionService, tell: Tell, stop: Stop, me: str, user_id: str, count: int
) -> list[int]:
    """Create sessions, and return the numbers of those that this worker created."""
    created = []
    for number in range(count):
        with suppress(AlreadyExistsError):
            await service.create_session(
                app_name=APP,
                user_id=user_id,
                session_id=str(number),
                state={"creator": me, f"user:{number}": me, f"app:{user_id} {number}": me},
            )
            created.append(number)
    return created


async def create_and_delete(
    service: PersistentSessionService,
    tell: Tell,
    stop: Stop,
    user_id: str,
    session_id: str,
    times: int,
) -> int:
    """Delete a session and create it again while others append to it."""
    for _ in range(times):
        await asyncio.sleep(random.random() / 50)
        await service.delete_session(app_name=APP, user_id=user_id, session_id=session_id)
        await service.create_session(app_name=APP, user_id=user_id, session_id=session_id)
    return times


async def watch(
    service: PersistentSessionService, tell: Tell, stop: Stop, user_id: str, lasting: list[str]
) -> int:
    """List sessions until told to stop. Every list must have all lasting sessions, with whole events."""
    lists = 0
    while not stop():
        for owner in (user_id, None):
            listed = await service.list_sessions(app_name=APP, user_id=owner)
            names = [(session.user_id, session.id) for session in listed.sessions]
            assert len(names) == len(set(names)), "a session is listed twice"
            missing = {(user_id, session_id) for session_id in lasting} - set(names)
            assert not missing, f"sessions are missing from a list: {missing}"
            for session in listed.sessions:
                numbers = {session.state[name] for name in ("a", "b") if name in session.state}
                assert len(numbers) <= 1, f"half of an event's state is listed: {session.state}"
            lists += 1
    return lists


async def change_two_keys(
    service: PersistentSessionService,
    tell: Tell,
    stop: Stop,
    user_id: str,
    lasting: list[str],
    times: int,
) -> None:
    """Append events that change two keys to lasting sessions. Create and delete other sessions."""
    for number in range(times):
        other = await service.create_session(app_name=APP, user_id=user_id)
        session = await service.get_session(
            app_name=APP, user_id=user_id, session_id=random.choice(lasting)
        )
        assert session is not None
        with suppress(StaleSessionError):
            await service.append_event(session, event(a=number, b=number))
        await service.delete_session(app_name=APP, user_id=user_id, session_id=other.id)
