"""Several processes write to the same sessions, and some are killed: acknowledged events are stored once."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from google.adk.sessions.session import Session

from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.session import PersistentSession

from ..sessions.support import APP, SESSION, USER, create, event, get
from .figures import Figure, long_or_short, repetitions
from .history import Answer, Attempt, check
from .workers import (
    Worker,
    change_two_keys,
    count_up,
    create_all,
    create_and_delete,
    keep_keys,
    watch,
    workers,
)

WORKERS = long_or_short(6, 3)
TIMES = repetitions(300, 15)
KILLS = long_or_short(100, 4)
KILLS_EACH = 4
"""Processes that are killed per session, before it is too long to be read quickly."""


@pytest.fixture
def team(uri: str) -> Iterator[list[Worker]]:
    """Processes that share a database."""
    with workers(uri, WORKERS) as team:
        yield team


def attempts(team: list[Worker]) -> list[Attempt]:
    """Return the last reported state of every append of the workers."""
    return [
        word for worker in team for word in {word.event_id: word for word in worker.told}.values()
    ]


def incarnation_of(session: Session) -> str:
    """Return the incarnation of a session."""
    assert isinstance(session, PersistentSession)
    return session.position.incarnation


async def finish(team: list[Worker]) -> list[Any]:
    """Wait for all workers without blocking the event loop."""
    return list(await asyncio.gather(*(asyncio.to_thread(worker.finish) for worker in team)))


class TestHistoryCheck:
    """A check proves something only if it can fail."""

    @staticmethod
    def _history(count: int) -> tuple[Session, list[Attempt]]:
        said = [event(str(number), own=number) for number in range(count)]
        session = Session(
            id=SESSION, app_name=APP, user_id=USER, events=said, state={"own": count - 1}
        )
        told = [
            Attempt(each.id, "incarnation", number, Answer.ACCEPTED)
            for number, each in enumerate(said)
        ]
        return session, told

    def test_correct_history_passes(self) -> None:
        session, told = self._history(3)
        session.state["user:of others"] = 1
        told += [
            Attempt("refused", "incarnation", 1, Answer.REFUSED),
            Attempt("killed", "incarnation", 3),
        ]
        told += [Attempt("before it was created again", "other incarnation", 0, Answer.ACCEPTED)]
        assert check(session, "incarnation", told)[Answer.ACCEPTED] == 3

    def test_lost_event_is_found(self) -> None:
        session, told = self._history(3)
        del session.events[1]
        with pytest.raises(AssertionError, match="accepted, and stored at"):
            check(session, "incarnation", told)

    def test_duplicated_event_is_found(self) -> None:
        session, told = self._history(3)
        session.events.append(session.events[2])
        with pytest.raises(AssertionError, match="accepted, and stored at"):
            check(session, "incarnation", told)

    def test_two_winners_of_one_revision_are_found(self) -> None:
        session, told = self._history(3)
        told[2] = Attempt(told[2].event_id, "incarnation", 1, Answer.ACCEPTED)
        with pytest.raises(AssertionError, match="accepted, and stored at"):
            check(session, "incarnation", told)

    def test_stored_event_that_was_refused_is_found(self) -> None:
        session, told = self._history(3)
        told[1] = told[1].told(Answer.REFUSED)
        with pytest.raises(AssertionError, match="refused, and stored at"):
            check(session, "incarnation", told)

    def test_state_without_its_event_is_found(self) -> None:
        session, told = self._history(3)
        session.state["own"] = 3
        with pytest.raises(AssertionError, match="not what the events made of it"):
            check(session, "incarnation", told)

    def test_event_without_its_state_is_found(self) -> None:
        session, told = self._history(3)
        session.state["own"] = 1
        with pytest.raises(AssertionError, match="not what the events made of it"):
            check(session, "incarnation", told)


class TestConcurrency:
    async def test_counter_equals_the_number_of_successful_appends(
        self, service: PersistentSessionService, team: list[Worker], figure: Figure
    ) -> None:
        """All workers read a session, add one and append. A refused worker starts over."""
        session = await create(service)
        for number, worker in enumerate(team):
            worker.start(count_up, f"w{number}", TIMES, USER, SESSION)
        await finish(team)
        stored = await get(service)
        answers = check(stored, incarnation_of(session), attempts(team))
        assert stored.state["total"] == len(stored.events) == WORKERS * TIMES
        assert answers[Answer.ACCEPTED] == WORKERS * TIMES
        figure("accepted", answers[Answer.ACCEPTED])
        figure("refused", answers[Answer.REFUSED])

    async def test_no_key_of_shared_state_is_lost(
        self, service: PersistentSessionService, team: list[Worker], figure: Figure
    ) -> None:
        """Sessions of two users of one app set keys at the same time."""
        users = ["one", *[USER] * (WORKERS - 1)]
        for number, (worker, user_id) in enumerate(zip(team, users, strict=True)):
            worker.start(keep_keys, f"w{number}", user_id, TIMES)
        await finish(team)
        expected: dict[str, dict[str, int]] = {}
        for number, user_id in enumerate(users):
            for count in range(TIMES):
                expected.setdefault(user_id, {})[f"w{number} {count}"] = count
        for user_id, state in expected.items():
            assert await service.get_user_state(app_name=APP, user_id=user_id) == state
        stored = await get(service, "w0", user_id="one")
        app = {name: value for name, value in stored.state.items() if name.startswith("app:")}
        assert app == {
            f"app:{name}": value for state in expected.values() for name, value in state.items()
        }
        figure("keys", 2 * WORKERS * TIMES)

    async def test_one_of_many_creators_wins(
        self, service: PersistentSessionService, team: list[Worker], figure: Figure
    ) -> None:
        for number, worker in enumerate(team):
            worker.start(create_all, f"w{number}", USER, TIMES)
        creators = {
            created: f"w{number}"
            for number, theirs in enumerate(await finish(team))
            for created in theirs
        }
        assert len(creators) == TIMES, "every session was created"
        listed = await service.list_sessions(app_name=APP, user_id=USER)
        stored = {int(session.id): session.state for session in listed.sessions}
        assert {number: state["creator"] for number, state in stored.items()} == creators
        for number, name in creators.items():
            assert stored[number][f"user:{number}"] == name, "a refused creation changes nothing"
            assert stored[number][f"app:{USER} {number}"] == name
        figure("creations", WORKERS * TIMES)

    async def test_recreated_session_contains_nothing_of_the_deleted_one(
        self, service: PersistentSessionService, team: list[Worker], figure: Figure
    ) -> None:
        await create(service)
        first, *others = team
        for number, worker in enumerate(others):
            worker.start(count_up, f"w{number}", 0, USER, SESSION)
        first.start(create_and_delete, USER, SESSION, TIMES)
        finishing = asyncio.ensure_future(finish(others))
        await asyncio.to_thread(first.finish)
        for worker in others:
            await asyncio.to_thread(worker.tells_more, 6)
            worker.ask_to_stop()
        await finishing
        stored = await get(service)
        answers = check(stored, incarnation_of(stored), attempts(others))
        figure("deletions", TIMES)
        figure("appends", sum(len(worker.told) for worker in others) // 2)
        figure("left", answers[Answer.ACCEPTED])

    async def test_list_is_complete_and_consistent_during_writes(
        self, service: PersistentSessionService, team: list[Worker], figure: Figure
    ) -> None:
        lasting = ["first", "second", "third"]
        for session_id in lasting:
            await create(service, session_id)
        watcher, *others = team
        watcher.start(watch, USER, lasting)
        for worker in others:
            worker.start(change_two_keys, USER, lasting, TIMES)
        await finish(others)
        watcher.ask_to_stop()
        figure("lists", await asyncio.to_thread(watcher.finish))


async def test_acknowledged_events_survive_killed_processes(
    uri: str, service: PersistentSessionService, figure: Figure
) -> None:
    """One process keeps appending, while others that do the same are killed one after the other."""
    answers, stored = Counter[Answer](), 0
    with workers(uri, 1) as (survivor,):
        for number in range(KILLS // KILLS_EACH):
            session = await create(service, str(number))
            dead = await _kill_some(uri, survivor, session.id)
            left = await get(service, session.id)
            answers += check(left, incarnation_of(session), attempts([survivor, *dead]))
            stored += len(left.events)
            assert left.state["total"] == len(left.events)
            await service.append_event(left, event("life goes on"))
    figure("kills", KILLS)
    figure("acknowledged", answers[Answer.ACCEPTED])
    figure("cut off in mid-append", answers[Answer.NONE])
    figure("of these stored", stored - answers[Answer.ACCEPTED])


async def _kill_some(uri: str, survivor: Worker, session_id: str) -> list[Worker]:
    """Kill one worker after the other at a random moment, while all append to a session."""
    dead = []
    survivor.start(count_up, "survivor", 0, USER, session_id)
    finishing = asyncio.ensure_future(finish([survivor]))
    for number in range(KILLS_EACH):
        victim = Worker(uri)
        victim.start(count_up, f"victim {number}", 0, USER, session_id)
        await asyncio.to_thread(victim.wait_for, random.randrange(1, 8))
        await asyncio.sleep(random.random() / 100)
        victim.kill()
        dead.append(victim)
    await asyncio.to_thread(survivor.tells_more, 6)
    survivor.ask_to_stop()
    await finishing
    return dead
