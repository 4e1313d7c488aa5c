"""PostgreSQL: leftovers in tables, locks, isolation, migration and refused values."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.postgres import records, schema, store
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.store import (
    Position,
    ScopedState,
    SessionKey,
)

from ..servers import postgres as server
from ..sessions.support import APP, SESSION, USER, create, event, exists, get, texts

TABLES = ("sessions", "events", "session_state", "user_state", "app_state")


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, whose settings the tests may change."""
    with server.serve(tmp_path_factory.mktemp("own"), SCHEME) as uri:
        yield uri


@pytest.fixture
def uri(own_server: str) -> Iterator[str]:
    """An empty database on that server."""
    with server.database(own_server) as uri:
        yield uri


def count_rows(uri: str) -> dict[str, int]:
    """Return the number of rows of each table that is not empty."""
    counts = ", ".join(f"(SELECT count(*) FROM sessions.{table})" for table in TABLES)
    [found] = server.execute(uri, f"SELECT {counts}")
    return {table: count for table, count in zip(TABLES, found, strict=True) if count}


@pytest.mark.usefixtures("clear_text")
async def test_deleted_session_leaves_nothing(uri: str) -> None:
    async with create_session_service(uri) as service:
        session = await create(service, state={"own": 1})
        await service.append_event(session, event())
        assert count_rows(uri) == {"sessions": 1, "events": 1, "session_state": 1}
        await service.delete_session(app_name=APP, user_id=USER, session_id=session.id)
    assert count_rows(uri) == {}


@pytest.mark.usefixtures("clear_text")
async def test_append_during_deletion_leaves_nothing(uri: str) -> None:
    async with create_session_service(uri) as service, create_session_service(uri) as other:
        for number in range(20):
            session = await create(service, str(number), state={"own": 1})
            await asyncio.gather(
                service.append_event(session, event(own=2)),
                other.delete_session(app_name=APP, user_id=USER, session_id=session.id),
                return_exceptions=True,
            )
    assert count_rows(uri) == {}


@pytest.mark.usefixtures("clear_text")
async def test_creation_during_deletion_creates_one_session(uri: str) -> None:
    async with create_session_service(uri) as service, create_session_service(uri) as other:
        await create(service)

        async def recreate(service: PersistentSessionService) -> int:
            created = 0
            for _ in range(300):
                await service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
                with suppress(AlreadyExistsError):
                    await create(service)
                    created += 1
            return created

        assert all(await asyncio.gather(recreate(service), recreate(other), recreate(service)))
    assert count_rows(uri) == {"sessions": 1}


@pytest.mark.usefixtures("clear_text")
async def test_expired_sessions_are_purged_in_batches(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CLEAN_EVERY", 1_000.0)
    monkeypatch.setattr(store, "CLEAN_BATCH", 2)
    async with create_session_service(uri) as service:
        for number in range(5):
            key, state = SessionKey(APP, USER, str(number)), ScopedState(session={"k": b"1"})
            await service.store.create(key, incarnation="1", state=state, now=0.0, ttl=60)
    for left in (3, 1, 0):
        async with create_session_service(uri) as service:
            await service.append_event(await create(service, f"alive {left}"), event())
    assert count_rows(uri) == {"sessions": 3, "events": 3}


async def test_ids_and_keys_may_have_any_length(uri: str) -> None:
    name = "".join(map(chr, Random(1).sample(range(0x10000, 0x40000), 10_000)))
    async with create_session_service(uri) as service:
        state = {name: 1, f"user:{name}": 2, f"app:{name}": 3}
        await service.create_session(app_name=name, user_id=name, session_id=name, state=state)
        found = await service.list_sessions(app_name=name)
        assert [(item.id, item.user_id, item.state) for item in found.sessions] == [
            (name, name, state)
        ]


async def test_writers_of_the_same_keys_do_not_deadlock(uri: str) -> None:
    keys = [f"{scope}k{number}" for scope in ("user:", "app:") for number in range(8)]

    async def write(service: PersistentSessionService, seed: int) -> None:
        shuffle = Random(seed)
        session = await create(service, str(seed), state={"user:k0": 0, "app:k0": 0})
        for _ in range(20):
            shuffle.shuffle(keys)
            said = event()
            said.actions.state_delta = dict.fromkeys(keys, seed)
            await service.append_event(session, said)

    async with create_session_service(uri) as service:
        await asyncio.gather(*(write(service, seed) for seed in range(8)))
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert server.execute(uri, deadlocks) == [(0,)]


async def test_stricter_isolation_levels_work(uri: str) -> None:
    name = urlsplit(uri).path[1:]
    server.execute(uri, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    async with create_session_service(uri) as service:
        await create(service)
        copies = [await get(service) for _ in range(4)]
        done = await asyncio.gather(
            *(service.append_event(copy, event(app__k=1)) for copy in copies),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, StaleSessionError) for outcome in done) == 3
        assert len((await get(service)).events) == 1


async def test_older_tables_are_migrated(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with create_session_service(uri) as service:
        await create(service)
    step = "ALTER TABLE $schema.sessions ADD COLUMN label text"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    services = [create_session_service(uri) for _ in range(3)]
    try:
        assert all(await asyncio.gather(*map(exists, services)))
    finally:
        for service in services:
            await service.close()
    assert server.execute(uri, "SELECT label FROM sessions.sessions") == [(None,)]


async def test_oversized_event_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LARGEST", 1_000)
    async with create_session_service(uri) as service:
        session = await create(service)
        with pytest.raises(ValueError, match="too large for PostgreSQL"):
            await service.append_event(session, event("x" * 2_000))
        assert session.events == (await get(service)).events == []


@pytest.mark.parametrize("sqlstate", ["not_null_violation", "numeric_value_out_of_range"])
async def test_refused_value_affects_only_its_caller(uri: str, sqlstate: str) -> None:
    # A trigger raises the error of PostgreSQL.
    async with create_session_service(uri) as service:
        sessions = [await create(service, str(number)) for number in range(8)]
        refuse = f"BEGIN IF NEW.timestamp = 3 THEN RAISE {sqlstate}; END IF; RETURN NEW; END"
        server.execute(
            uri, f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $${refuse}$$"
        )
        server.execute(
            uri,
            "CREATE TRIGGER refuse BEFORE INSERT ON sessions.events"
            " FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        done = await asyncio.gather(
            *(
                service.append_event(session, event(timestamp=float(number), user__k=number))
                for number, session in enumerate(sessions)
            ),
            return_exceptions=True,
        )
        [refused] = [outcome for outcome in done if isinstance(outcome, Exception)]
        assert isinstance(refused, ValueError)
        assert str(refused) == f"PostgreSQL cannot store a value: {sqlstate}."
        assert refused is done[3]


@pytest.mark.parametrize("timestamp", ["noon", 10**400], ids=["noon", "too large"])
async def test_value_refused_by_the_driver_leaves_the_pool_usable(uri: str, timestamp: Any) -> None:
    async with create_session_service(uri, max_connections=1) as service:
        session = await create(service)
        for _ in range(3):
            with pytest.raises(ValueError, match="cannot store a value: invalid input"):
                await service.store.append(
                    SessionKey(APP, USER, session.id),
                    expected=Position("another", 0),
                    event=b"",
                    timestamp=timestamp,
                    state=ScopedState(user={"k": b"1"}),
                    now=1.0,
                )
        await service.append_event(session, event("fine"))
        assert texts(await get(service)) == ["fine"]
