"""MongoDB: the commands of each call, and failures of the server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.adk.sessions.base_session_service import GetSessionConfig
from pymongo import AsyncMongoClient
from pymongo.collection import Collection
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME, SCHEMES
from {{ cookiecutter.__package }}.sessions.errors import StoreUnavailable
from {{ cookiecutter.__package }}.sessions.mongodb.options import parse
from {{ cookiecutter.__package }}.sessions.mongodb.store import MongoDBStore
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.uri import parse_uri

from ..servers import mongodb as server
from ..servers import namespace, proxy, serve
from ..servers.proxy import Fault, Proxy
from ..sessions.support import APP, SESSION, USER, create, event, exists, get, texts

Documents = Collection[dict[str, Any]]


class Commands(CommandListener):
    """Records the commands of a client."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.sent.append(event.command_name)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass

    def take(self) -> list[str]:
        """Return the commands since the last call."""
        sent, self.sent = self.sent, []
        return sent


Watched = tuple[Commands, PersistentSessionService]


@pytest.fixture
def documents(uri: str) -> Documents:
    """The collection of a test."""
    return server.collection(uri, SCHEME)


@pytest.fixture
async def watched(uri: str) -> AsyncIterator[Watched]:
    """A service without a cache whose commands are recorded."""
    commands = Commands()
    parsed = parse_uri(uri, scheme=SCHEME, schemes=SCHEMES, options={})
    host, settings, database, collection = parse(parsed)
    store = MongoDBStore(
        lambda: AsyncMongoClient(host, event_listeners=[commands], **settings),
        location=host,
        database=database,
        collection=collection,
    )
    async with PersistentSessionService(store, ttl=3_600, cache_bytes=0) as service:
        await service.check()
        commands.take()
        yield commands, service


def lengthen(documents: Documents, length: int) -> None:
    """Copy the first event of a session until it has this many. This is faster than appending."""
    (first,) = documents.find({"order": 1})
    copies = [first | {"_id": f"{first['log']}/{n:012d}", "order": n} for n in range(2, length + 1)]
    documents.insert_many(copies)
    documents.update_one({"session_id": SESSION}, {"$set": {"revision": length}})


class TestCommands:
    @pytest.mark.parametrize("length", [10, 1_000])
    async def test_append_costs_one_command_and_read_two_at_any_length(
        self, watched: Watched, documents: Documents, length: int
    ) -> None:
        commands, service = watched
        session = await create(service)
        assert commands.take() == ["update", "find"]
        await service.append_event(session, event("first"))
        assert commands.take() == ["update"]
        lengthen(documents, length)
        await get(service)
        commands.take()

        session = await get(service)
        assert len(session.events) == length
        assert commands.take() == ["find", "find"]
        await service.append_event(session, event("last", timestamp=2, n=1, user__n=1, app__n=1))
        assert commands.take() == ["update"]
        assert (await get(service)).state == {"n": 1, "user:n": 1, "app:n": 1}
        assert commands.take() == ["find", "find"]
        for config, expected in (
            (GetSessionConfig(num_recent_events=3), ["first", "first", "last"]),
            (GetSessionConfig(after_timestamp=2), ["last"]),
        ):
            assert texts(await get(service, config=config)) == expected
            assert commands.take() == ["find", "find"]

    @pytest.mark.usefixtures("clear_text")
    async def test_read_repeats_if_another_process_appends_meanwhile(
        self, watched: Watched, uri: str
    ) -> None:
        commands, service = watched
        await create(service)
        async with create_session_service(uri) as other:
            await other.append_event(await get(other), event(user__n=1))
        commands.take()
        assert (await get(service)).state == {"user:n": 1}
        assert commands.take() == ["find", "find", "find"]
        await get(service)
        assert commands.take() == ["find", "find"]

    async def test_list_costs_two_commands(self, watched: Watched) -> None:
        commands, service = watched
        for user in ("ada", "grace"):
            for number in range(3):
                await create(service, str(number), user_id=user, state={"user:name": user})
        commands.take()
        listed = await service.list_sessions(app_name=APP, user_id="ada")
        assert commands.take() == ["find", "find"]
        assert [session.state for session in listed.sessions] == [{"user:name": "ada"}] * 3
        listed = await service.list_sessions(app_name=APP)
        assert commands.take() == ["find", "find"]
        assert len(listed.sessions) == 6

    async def test_writer_without_cache_reads_the_session_once(self, watched: Watched) -> None:
        commands, service = watched
        session = await create(service)
        await service.close()
        await service.check()
        commands.take()
        await service.append_event(session, event())
        assert commands.take() == ["find", "update"]

    async def test_deletion_costs_two_commands(self, watched: Watched) -> None:
        commands, service = watched
        await service.append_event(await create(service), event())
        commands.take()
        await service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert commands.take() == ["distinct", "delete"]

    async def test_event_with_many_user_keys_takes_several_commands(self, watched: Watched) -> None:
        """Each command has its own time-out, so the event is stored in the end."""
        commands, service = watched
        many = event("many")
        many.actions.state_delta |= {f"user:{number}": number for number in range(300)}
        session = await create(service)
        commands.take()
        await service.append_event(session, many)
        assert commands.take() == ["update"] * 4
        assert len((await get(service)).state) == 300


@pytest.fixture
async def proxied(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Proxy, PersistentSessionService]]:
    """A proxy in front of a server, and a service that connects through it."""
    with serve(tmp_path_factory.mktemp("own")) as own, namespace(own) as uri:
        async with (
            proxy.run(*proxy.address(uri)) as between,
            create_session_service(proxy.through(uri, between.port)) as service,
        ):
            yield between, service


async def test_recovered_server_is_used(
    proxied: tuple[Proxy, PersistentSessionService],
) -> None:
    between, service = proxied
    await create(service)
    for fault, said in (
        (Fault.SILENCE, "did not answer in time"),
        (Fault.REFUSE, "reached|closed the connection"),
    ):
        between.fault = fault
        with pytest.raises(StoreUnavailable, match=said):
            await get(service)
        between.fault = Fault.NONE
        for _ in range(30):
            try:
                assert await exists(service)
                break
            except StoreUnavailable:  # the driver has not noticed yet that the server is back
                await asyncio.sleep(0.1)
        assert await exists(service)
