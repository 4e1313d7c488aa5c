"""Servers behind HAProxy are replaced one after the other while people talk to them."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from {{ cookiecutter.__package }}.sessions import create_session_service

from ..servers import backend
from ..servers.starting import free_port
from ..sessions.programs import AGENTS, PYTHON, Server, message
from ..sessions.support import SESSION, until, with_options
from .figures import LONG, Figure, long_or_short
from .haproxy import balance
from .test_turns_at_once import note, stored, text_of, turns_of

SERVE = [*PYTHON, "serve", "--drain=3", str(AGENTS)]
SERVERS = long_or_short(3, 2)
REPLACED = long_or_short(30, 1)
"""How often a server is replaced, which takes some seconds."""
SIGNALS = [signal.SIGTERM, signal.SIGKILL] if LONG else [signal.SIGTERM]
"""`test_turns_at_once.py` kills servers in the short form."""
_name, _, _limit = backend.IMPATIENT.partition("&")[0].partition("=")
PATIENT = f"{_name}={30 * int(_limit)}"
"""Lets a call of the store take a minute, because the machine may be busy."""
PAUSE = 0.1
"""Seconds between an answer and the next message, in which new servers can start."""
USERS = [f"user {number}" for number in range(4)]
PEOPLE = [USERS[0], *USERS]
"""Two people talk in one session, through different balancers."""


class Fleet:
    """Servers on fixed ports, each of which can be replaced."""

    def __init__(self, uri: str, directory: Path, stack: ExitStack) -> None:
        self.uri = uri
        self.directory = directory
        self.stack = stack
        self.ports = [free_port() for _ in range(SERVERS)]
        self.servers: list[Server] = []
        for slot in range(SERVERS):
            self.servers.append(self.start(slot, "first"))

    def start(self, slot: int, name: str) -> Server:
        """Start the server of a slot."""
        output = self.directory / f"{slot} {name}"
        server = Server(SERVE, self.uri, output, port=self.ports[slot])
        self.stack.callback(server.kill)
        return server

    def replace(self, slot: int, name: str, sent: int) -> None:
        """End the server of a slot with a signal, and start another one."""
        self.servers[slot].process.send_signal(sent)
        self.servers[slot].wait()
        self.servers[slot] = self.start(slot, name).ready()


async def say_once(client: httpx.AsyncClient, user: str, text: str) -> None:
    """Send a message, which must be answered."""
    response = await client.post("/run", json=message(SESSION, text, user=user))
    assert response.status_code == 200, response.text


async def say_again(client: httpx.AsyncClient, user: str, text: str) -> None:
    """Send a message until it is answered."""
    while True:
        try:
            response = await client.post("/run", json=message(SESSION, text, user=user))
        except httpx.TransportError:
            continue
        if response.status_code == 200:
            return
        assert response.status_code in (409, 502, 503), response.text


@pytest.mark.parametrize("sent", SIGNALS, ids=lambda sent: sent.name)
async def test_rollout_loses_no_message(
    uri: str, tmp_path: Path, figure: Figure, sent: signal.Signals
) -> None:
    """After SIGTERM, no request fails. After SIGKILL, people have to repeat their message."""
    say = say_once if sent == signal.SIGTERM else say_again
    uri = with_options(uri, PATIENT)
    acknowledged = Counter[str]()
    waits: list[float] = []
    done = asyncio.Event()
    async with create_session_service(uri) as service:
        for user in USERS:
            await service.create_session(app_name="noter", user_id=user, session_id=SESSION)
    with ExitStack() as stack:
        fleet = Fleet(uri, tmp_path, stack)
        for server in fleet.servers:
            await asyncio.to_thread(server.ready)
        addresses = stack.enter_context(balance(tmp_path, fleet.ports))

        async def talk(person: int, user: str) -> None:
            base = addresses[person % 2]
            async with httpx.AsyncClient(base_url=base, timeout=120, trust_env=False) as client:
                number = 0
                while not done.is_set():
                    sent_at = time.monotonic()
                    await say(client, user, note(f"{person}.{number}"))
                    waits.append(time.monotonic() - sent_at)
                    acknowledged[f"{person}"] += 1
                    number += 1
                    await asyncio.sleep(PAUSE)

        async def roll_out() -> None:
            try:
                for number in range(REPLACED):
                    before = acknowledged.total()
                    await until(lambda: acknowledged.total() > before)  # noqa: B023
                    await asyncio.to_thread(fleet.replace, number % SERVERS, f"{number}", sent)
            finally:
                done.set()

        await asyncio.gather(roll_out(), *(talk(*person) for person in enumerate(PEOPLE)))
    for user in USERS:
        session = await stored(uri, user)
        answered = Counter(text_of(turn[0]) for turn in turns_of(session) if len(turn) == 4)
        expected = expected_of(user, acknowledged)
        assert answered.keys() >= set(map(note, expected))
        assert session.state.keys() >= set(expected)
        if sent == signal.SIGTERM:
            assert answered == Counter(map(note, expected)), "each message once"
    figure("servers replaced", REPLACED)
    figure("messages", acknowledged.total())
    figure("longest answer, ms", round(1_000 * max(waits)))


def expected_of(user: str, acknowledged: Counter[str]) -> Sequence[str]:
    """Return the state keys of all messages of a user that were answered."""
    return [
        f"{person}.{number}"
        for person, name in enumerate(PEOPLE)
        if name == user
        for number in range(acknowledged[f"{person}"])
    ]
