"""Similar names of apps, users and sessions never reach each other's data.

A careless store could confuse any two names of a group, if it joined parts with a separator, folded case,
truncated names, or used them as patterns, paths, numbers or code.
"""

import asyncio
import random
from math import comb
from typing import Any

import pytest
from google.adk.errors.already_exists_error import AlreadyExistsError

from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..sessions.support import event, texts
from .figures import Figure, long_or_short, repetitions
from .hostile import LONG, Name, families

AT_ONCE = 8
"""Groups that run at the same time, because they have no app in common."""


def ids(name: Name) -> dict[str, Any]:
    """Return a name as keyword arguments of a service."""
    return dict(zip(("app_name", "user_id", "session_id"), name, strict=True))


async def test_similar_names_are_isolated(
    service: PersistentSessionService, figure: Figure
) -> None:
    groups = list(families(random.randrange(1 << 32), long_or_short(300, 6)))
    groups = random.sample(groups, repetitions(len(groups), len(groups)))
    free = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as trials:
        for number, group in enumerate(groups):
            # A number before their apps separates the groups from each other.
            own = [(f"{number}§{app}", user, session) for app, user, session in group]
            trials.create_task(_keep_apart(service, own, free))
    figure("pairs", sum(comb(len(group), 2) for group in groups))


async def _keep_apart(
    service: PersistentSessionService, group: list[Name], free: asyncio.Semaphore
) -> None:
    async with free:
        await _create_all(service, group)
        await _append_to_each(service, group)
        await _list_each(service, group)
        await _delete_one_by_one(service, group)


async def _create_all(service: PersistentSessionService, group: list[Name]) -> None:
    for name in group:
        assert await service.get_session(**ids(name)) is None, name
        own = {"own": name, "user:own": name[:2], "app:own": name[0]}
        await service.create_session(**ids(name), state=own)
        with pytest.raises(AlreadyExistsError):
            await service.create_session(**ids(name))


async def _append_to_each(service: PersistentSessionService, group: list[Name]) -> None:
    for name in group:
        session = await service.get_session(**ids(name))
        assert session is not None
        said = event(repr(name))
        said.actions.state_delta = {"said": name, f"{name[2]}": name}
        await service.append_event(session, said)
    for name in group:
        session = await service.get_session(**ids(name))
        assert session is not None
        assert (session.app_name, session.user_id, session.id) == name
        assert texts(session) == [repr(name)], name
        expected = {"own": name, "user:own": name[:2], "app:own": name[0], "said": name}
        assert session.state == expected | {name[2]: name}, name
        state = await service.get_user_state(app_name=name[0], user_id=name[1])
        assert state == {"own": name[:2]}


async def _list_each(service: PersistentSessionService, group: list[Name]) -> None:
    for app_name, user_id in {name[:2] for name in group}:
        listed = (await service.list_sessions(app_name=app_name, user_id=user_id)).sessions
        found = sorted((session.app_name, session.user_id, session.id) for session in listed)
        assert found == sorted(name for name in group if name[:2] == (app_name, user_id))
        assert all(session.state["own"] == (app_name, user_id, session.id) for session in listed)
    for app_name in {name[0] for name in group}:
        listed = (await service.list_sessions(app_name=app_name)).sessions
        found = sorted((session.app_name, session.user_id, session.id) for session in listed)
        assert found == sorted(name for name in group if name[0] == app_name)


async def _delete_one_by_one(service: PersistentSessionService, group: list[Name]) -> None:
    random.shuffle(group)
    left = {name[0]: {other for other in group if other[0] == name[0]} for name in group}
    for name in group:
        await service.delete_session(**ids(name))
        left[name[0]].remove(name)
        listed = (await service.list_sessions(app_name=name[0])).sessions
        assert {(name[0], session.user_id, session.id) for session in listed} == left[name[0]]


async def test_long_name_is_stored_or_refused(
    service: PersistentSessionService, figure: Figure
) -> None:
    """If it were truncated, two users could have the same name."""
    held = 0
    for length in (10_000, 100_000):
        for place in range(3):
            name = ["a", "u", "s"]
            name[place] = LONG[0][0] * length
            app_name, user_id, session_id = name
            state = {"own": 1, "user:own": 1, "app:own": 1}
            try:
                await service.create_session(
                    app_name=app_name, user_id=user_id, session_id=session_id, state=state
                )
            except ValueError as error:
                sentence = str(error)
                assert sentence.endswith(".")
                assert "\n" not in sentence
                assert len(sentence) < 1_000
                listed = await service.list_sessions(app_name="a")
                assert listed.sessions == []
                assert await service.get_user_state(app_name="a", user_id="u") == {}
                continue
            held += 1
            session = await service.get_session(
                app_name=app_name, user_id=user_id, session_id=session_id
            )
            assert session is not None
            assert (session.app_name, session.user_id, session.id) == (
                app_name,
                user_id,
                session_id,
            )
            await service.delete_session(app_name=app_name, user_id=user_id, session_id=session_id)
    figure("names held", held)


@pytest.mark.parametrize("place", range(3))
async def test_id_must_be_valid_unicode(service: PersistentSessionService, place: int) -> None:
    name = ["a", "u", "s"]
    name[place] = "half \ud83d"
    app_name, user_id, session_id = name
    with pytest.raises(ValueError, match=r"not valid Unicode\.$"):
        await service.create_session(
            app_name=app_name, user_id=user_id, session_id=session_id, state={"user:a": 1}
        )
    assert await service.get_user_state(app_name="a", user_id="u") == {}


async def test_state_key_must_be_valid_unicode(
    service: PersistentSessionService,
) -> None:
    with pytest.raises(ValueError, match=r"^State key 'half \\ud83d' is not valid Unicode\.$"):
        await service.create_session(
            app_name="a", user_id="u", session_id="s", state={"half \ud83d": 1, "user:a": 1}
        )
    assert await service.get_user_state(app_name="a", user_id="u") == {}
