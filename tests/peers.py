"""Promises that ADK's own services break.

`test_peers.py` runs this file in the environment of a baked project. It tries each promise on the project's
service and on the service of ADK that breaks it, and prints the results as JSON. Costs are the bytes and
commands that the server has counted, never times.
"""

# ruff: noqa: D401
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

Make = Callable[[], Any]
"""Creates a service. A second one stands for a second process."""

APP, USER, SESSION = "app", "user", "session"
OWNER = {"app_name": APP, "user_id": USER}
NAME = {**OWNER, "session_id": SESSION}


def event(text: str = "", timestamp: float = 1.0, **more: Any) -> Event:
    """Return an event with a text."""
    state = more.pop("state", {})
    content = types.Content(role="user", parts=[types.Part(text=text)])
    actions = EventActions(state_delta=state)
    return Event(author="user", timestamp=timestamp, content=content, actions=actions, **more)


def texts(session: Any) -> list[str]:
    """Return the texts of a session's events."""
    return [said.content.parts[0].text for said in session.events]


# Promises about any service.


async def stale_writer_is_refused(make: Make) -> None:
    """Of two writers with the same copy, the second has not seen the event of the first."""
    service = make()
    await service.create_session(**NAME, state={"count": 0})
    first, second = await service.get_session(**NAME), await service.get_session(**NAME)
    for number, session in enumerate((first, second)):
        said = event(timestamp=2.0 + number, state={"count": session.state["count"] + 1})
        with suppress(StaleSessionError):
            await service.append_event(session, said)
    stored = await service.get_session(**NAME)
    assert stored.state["count"] == len(stored.events), "a stale writer was accepted"


async def stale_writer_with_equal_timestamp_is_refused(make: Make) -> None:
    """Two events may have exactly the same timestamp."""
    service = make()
    await service.create_session(**NAME)
    session = await service.get_session(**NAME)
    later = session.last_update_time + 10
    await service.append_event(session, event("zeroth", timestamp=later))
    first, second = await service.get_session(**NAME), await service.get_session(**NAME)
    await service.append_event(first, event("first", timestamp=later))
    try:
        await service.append_event(second, event("second", timestamp=later))
    except StaleSessionError:
        return
    raise AssertionError("a stale writer was accepted, because the timestamps are equal")


async def one_of_many_writers_is_accepted(make: Make) -> None:
    """Sixteen writers have the same copy."""
    service = make()
    session = await service.create_session(**NAME)
    later = session.last_update_time + 10
    copies = [await service.get_session(**NAME) for _ in range(16)]
    results = await asyncio.gather(
        *(service.append_event(copy, event(str(n), later)) for n, copy in enumerate(copies)),
        return_exceptions=True,
    )
    accepted = sum(isinstance(result, Event) for result in results)
    assert accepted == 1, f"{accepted} of 16 were accepted"


async def processes_do_not_count_from_zero_twice(make: Make) -> None:
    """Two processes read a counter, add one and append."""
    services = make(), make()
    for number in range(20):
        name = {**OWNER, "session_id": str(number)}
        await services[0].create_session(**name, state={"count": 0})
        copies = [await service.get_session(**name) for service in services]
        results = await asyncio.gather(
            *(
                service.append_event(copy, event(timestamp=4e9, state={"count": 1}))
                for service, copy in zip(services, copies, strict=True)
            ),
            return_exceptions=True,
        )
        accepted = sum(isinstance(result, Event) for result in results)
        assert accepted <= 1, "both were accepted, and the counter reads 1"


async def events_keep_their_order(make: Make) -> None:
    """Ten events have the same timestamp."""
    service = make()
    session = await service.create_session(**NAME)
    for number in range(10):
        await service.append_event(session, event(str(number), session.last_update_time))
    found = texts(await service.get_session(**NAME))
    assert found == list("0123456789"), f"the order is {''.join(found)}"


async def repeated_event_is_stored_once(make: Make) -> None:
    """A caller repeats an event if the reply was lost."""
    service = make()
    session = await service.create_session(**NAME)
    said = event("once", session.last_update_time + 1)
    await service.append_event(session, said)
    try:
        await service.append_event(session, said)
    except Exception as error:
        raise AssertionError(f"it ends in {type(error).__name__}") from error
    found = texts(await service.get_session(**NAME))
    assert found == ["once"], f"it is stored {len(found)} times"


async def concurrent_user_keys_are_both_kept(make: Make) -> None:
    """Two sessions of a user set different keys at the same time."""
    service, lost = make(), 0
    for number in range(100):
        sessions = [await service.create_session(**OWNER) for _ in range(2)]
        keys = [f"{number} {which}" for which in range(2)]
        await asyncio.gather(
            *(
                service.append_event(session, event(timestamp=4e9, state={f"user:{key}": 1}))
                for session, key in zip(sessions, keys, strict=True)
            )
        )
        lost += len(set(keys) - (await service.get_user_state(**OWNER)).keys())
    assert not lost, f"a key was lost {lost} times in 100"


async def similar_ids_do_not_collide(make: Make) -> None:
    """Joined by a colon, user `a` with session `b:c` equals user `a:b` with session `c`."""
    service = make()
    await service.create_session(app_name=APP, user_id="a:b", session_id="c", state={"secret": 1})
    found = await service.get_session(app_name=APP, user_id="a", session_id="b:c")
    assert found is None, "user `a` reads the session of user `a:b`"


async def delete_does_not_affect_another_app(make: Make) -> None:
    """The deleted app has the name of a prefix of keys."""
    service = make()
    await service.create_session(**NAME, state={"user:name": "Ada"})
    await service.delete_session(app_name="user_state", user_id=APP, session_id=USER)
    state = await service.get_user_state(**OWNER)
    assert state == {"name": "Ada"}, "it wiped the state of a user of another app"


async def deleted_session_stays_deleted(make: Make) -> None:
    """An append runs at the same time as the deletion."""
    service = make()
    for number in range(200):
        name = {**OWNER, "session_id": str(number)}
        session = await service.create_session(**name)
        late = service.append_event(session, event(state={"user:late": 1}))
        await asyncio.gather(late, service.delete_session(**name), return_exceptions=True)
        found = await service.get_session(**name)
        assert found is None, "an append has brought it back"


async def refused_creation_changes_nothing(make: Make) -> None:
    """A session with this id exists."""
    service = make()
    await service.create_session(**NAME, state={"user:name": "Ada"})
    with suppress(AlreadyExistsError):
        await service.create_session(**NAME, state={"user:name": "Eve"})
    state = await service.get_user_state(**OWNER)
    assert state == {"name": "Ada"}, "its `user:` state was written"


async def partial_event_changes_nothing(make: Make) -> None:
    """A partial event is a part of a later one."""
    service = make()
    session = await service.create_session(**NAME)
    await service.append_event(session, event(partial=True, state={"user:half": 1}))
    state = await service.get_user_state(**OWNER)
    assert state == {}, "its `user:` state was written"


# Promises about the load on Redis.


async def user_state_outlives_sessions(make: Make) -> None:
    """A key with a TTL in Redis disappears, even if a session is alive."""
    service = make()
    await service.create_session(**NAME, state={"user:name": "Ada"})
    found = [key for key in REDIS.scan_iter() if b"Ada" in (REDIS.dump(key) or b"")]
    assert found
    assert all(REDIS.ttl(key) == -1 for key in found), "it expires by itself"


async def append_cost_does_not_depend_on_the_history(make: Make) -> None:
    """The traffic of an append is the same at event 500 and at event 10."""
    service, costs = make(), []
    session = await service.create_session(**NAME)
    for number in range(501):
        before = _traffic()
        await service.append_event(session, event("x" * 100, session.last_update_time + 1))
        if number in (10, 500):
            costs.append(_traffic() - before)
    growth = costs[1] / costs[0]
    assert growth < 2, f"event 500 moves {growth:.0f} times the bytes of event 10"


async def recent_events_do_not_cost_the_history(make: Make) -> None:
    """A reader asks for twenty events of 500."""
    writer = make()
    session = await writer.create_session(**NAME)
    for _ in range(500):
        await writer.append_event(session, event("x" * 100, session.last_update_time + 1))
    costs = []
    for config in (GetSessionConfig(num_recent_events=20), None):
        reader = make()
        await reader.get_session(**OWNER, session_id="none")
        before = _traffic()
        await reader.get_session(**NAME, config=config)
        costs.append(_traffic() - before)
    assert costs[0] < costs[1] / 5, "it loads all 500"


async def list_does_not_scan_other_keys(make: Make) -> None:
    """The server has a thousand unrelated keys."""
    service = make()
    await service.create_session(**NAME)
    costs = []
    for _ in range(2):
        before = REDIS.info("stats")["total_commands_processed"]
        await service.list_sessions(**OWNER)
        costs.append(REDIS.info("stats")["total_commands_processed"] - before)
        REDIS.mset({f"other {number}": 1 for number in range(1_000)})
    assert costs[1] - costs[0] < 10, f"it takes {costs[1]} commands instead of {costs[0]}"


def _traffic() -> int:
    stats = REDIS.info("stats")
    return int(stats["total_net_input_bytes"] + stats["total_net_output_bytes"])


Promise = Callable[[Make], Awaitable[None]]

PROMISES: dict[str, dict[str, list[Promise]]] = {
    "redis": {
        "RedisSessionService": [
            stale_writer_is_refused,
            one_of_many_writers_is_accepted,
            repeated_event_is_stored_once,
            concurrent_user_keys_are_both_kept,
            similar_ids_do_not_collide,
            delete_does_not_affect_another_app,
            deleted_session_stays_deleted,
            refused_creation_changes_nothing,
            partial_event_changes_nothing,
            user_state_outlives_sessions,
            append_cost_does_not_depend_on_the_history,
            recent_events_do_not_cost_the_history,
            list_does_not_scan_other_keys,
        ],
    },
    "postgres": {
        "DatabaseSessionService": [
            stale_writer_with_equal_timestamp_is_refused,
            events_keep_their_order,
            repeated_event_is_stored_once,
        ],
    },
    "sqlite": {
        "DatabaseSessionService": [
            stale_writer_with_equal_timestamp_is_refused,
            processes_do_not_count_from_zero_twice,
            events_keep_their_order,
            repeated_event_is_stored_once,
        ],
        "SqliteSessionService": [
            one_of_many_writers_is_accepted,
            stale_writer_with_equal_timestamp_is_refused,
            repeated_event_is_stored_once,
        ],
    },
}
"""The promises to try, by backend and service of ADK."""

REDIS: Any = None


async def tried(promise: Promise, make: Make) -> str:
    """Return the failure of a promise, or an empty string."""
    made: list[Any] = []

    def remember() -> Any:
        made.append(make())
        return made[-1]

    try:
        await promise(remember)
    except AssertionError as error:
        return str(error)
    except SessionNotFoundError as error:
        return repr(error)
    finally:
        for service in made:
            if REDIS and hasattr(service, "_get_redis"):
                await service._get_redis().aclose()
            elif hasattr(service, "close"):
                await service.close()
    return ""


def peer(name: str, server: str, folder: str) -> Make:
    """Return a function that creates a service of ADK, on the server or on a new file."""
    path = Path(tempfile.mkdtemp(dir=folder)) / "peer.db"
    if name == "RedisSessionService":
        from google.adk.integrations.redis import RedisSessionService, RedisSessionServiceConfig

        return lambda: RedisSessionService(RedisSessionServiceConfig(uri=server))
    if name == "SqliteSessionService":
        from google.adk.sessions.sqlite_session_service import SqliteSessionService

        return lambda: SqliteSessionService(str(path))
    from google.adk.sessions.database_session_service import DatabaseSessionService

    url = server if server.startswith("postgresql") else f"sqlite+aiosqlite:///{path}"
    return lambda: DatabaseSessionService(url)


def own_uri(backend: str, uri: str, folder: str) -> str:
    """Return a session URI of the project that shares only the server with the peer."""
    scheme, _, place = uri.partition("://")
    if backend == "sqlite":
        return f"{scheme}:///{tempfile.mkdtemp(dir=folder)}/own.db"
    return f"{scheme}://{place}{'?schema=own' if backend == 'postgres' else ''}"


def main(package: str, backend: str, uri: str) -> None:
    """Try all promises on a server of this backend, and print the results."""
    global REDIS
    sessions = importlib.import_module(f"{package}.sessions")
    driver = {"redis": "redis", "postgres": "postgresql+asyncpg"}.get(backend, backend)
    server = f"{driver}://{uri.partition('://')[2]}"
    if backend == "redis":
        import redis

        REDIS = redis.Redis.from_url(server)
    found: dict[str, dict[str, dict[str, str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, promises in PROMISES[backend].items():
            for promise in promises:
                own = own_uri(backend, uri, folder)
                ended = {}
                for who, make in (
                    ("ours", lambda own=own: sessions.create_session_service(own)),
                    ("peer", peer(name, server, folder)),
                ):
                    if REDIS:
                        REDIS.flushall()
                    if backend == "postgres":
                        OWNER["app_name"] = NAME["app_name"] = promise.__name__
                    ended[who] = asyncio.run(tried(promise, make))
                found.setdefault(name, {})[promise.__name__] = ended
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
