"""What is particular to MongoDB: its documents, writers that do not come to their end, errors."""

import asyncio
import gc
import socket
import time
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.platform import time as platform_time
from google.adk.sessions.base_session_service import GetSessionConfig
from pymongo import AsyncMongoClient, MongoClient
from pymongo.collection import Collection
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    SessionStoreError,
    StoreUnavailable,
)
from {{ cookiecutter.__package }}.sessions.mongodb.documents import CLOSED, HEAD
from {{ cookiecutter.__package }}.sessions.mongodb.store import MongoDBStore
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import mongodb as server
from ..servers import namespace, proxy
from ..servers.proxy import Proxy, Weather
from .support import APP, SESSION, USER, create, event, exists, get, texts

Documents = Collection[dict[str, Any]]

PHRASE = "p@ss/word, not a real one"


@pytest.fixture
def documents(uri: str) -> Documents:
    """The collection of a test, without the document that says whose it is."""
    parts = urlsplit(uri)
    database = server.connect(uri.partition("?")[0], SCHEME)[parts.path.strip("/")]
    return database[dict(parse_qsl(parts.query))["collection"]]


@pytest.fixture(scope="module")
def own_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that tests may command to fail."""
    directory = tmp_path_factory.mktemp("own")
    with server.serve(directory, SCHEME, "--enable-test-commands") as uri:
        yield uri


@pytest.fixture
def own_corner(own_uri: str) -> Iterator[str]:
    """A corner of that server."""
    with namespace(own_uri) as uri:
        yield uri


@pytest.fixture
async def proxied(own_corner: str) -> AsyncIterator[tuple[Proxy, PersistentSessionService]]:
    """A proxy before that server, and a service that goes through it."""
    async with (
        proxy.run(*proxy.address(own_corner)) as between,
        create_session_service(proxy.through(own_corner, between.port)) as service,
    ):
        yield between, service


@pytest.fixture
def own_server(own_uri: str) -> Iterator["MongoClient[dict[str, Any]]"]:
    """A client of that server, to make it fail; it is mended in the end."""
    client = server.connect(own_uri, SCHEME)
    yield client
    client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def fail(client: "MongoClient[dict[str, Any]]", commands: Sequence[str], **how: Any) -> None:
    """Have these commands fail until told otherwise."""
    data = {"failCommands": list(commands), "appName": "adk-sessions", **how}
    client.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})


class Killed(Exception):
    """What a writer ends with that is killed."""


def kill_after(
    service: PersistentSessionService, operations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Have the next command of a service end after some of its operations, and nothing follow it."""
    store = service.store
    assert isinstance(store, MongoDBStore)
    write = store._write

    async def cut_short(collection: Any, planned: Sequence[Any]) -> None:
        assert operations < len(planned)
        if operations:
            await write(collection, planned[:operations])
        monkeypatch.setattr(store, "_write", write)
        raise Killed

    monkeypatch.setattr(store, "_write", cut_short)


class TestWritersThatAreKilled:
    """The server may stop between any two operations of a command, and the writer before the next."""

    # insert the event, bring up the head, write a value each of user and app, take them off the head
    @pytest.mark.parametrize("operations", [1, 2, 3, 4])
    async def test_whoever_reads_next_finishes_an_append(
        self, uri: str, monkeypatch: pytest.MonkeyPatch, operations: int
    ) -> None:
        async with create_session_service(uri) as killed, create_session_service(uri) as reader:
            session = await create(killed, state={"own": 0})
            said = event("said", own=1, user__a=2, app__b=3)
            kill_after(killed, operations, monkeypatch)
            with pytest.raises(Killed):
                await killed.append_event(session, said)
            found = await get(reader)
            assert texts(found) == ["said"]
            assert found.state == {"own": 1, "user:a": 2, "app:b": 3}
            await reader.append_event(found, event("next"))
            await killed.append_event(session, said)
            assert texts(await get(killed)) == ["said", "next"]

    @pytest.mark.parametrize("operations", [1, 2, 3, 4])
    async def test_whoever_appends_next_finishes_an_append(
        self, uri: str, monkeypatch: pytest.MonkeyPatch, operations: int
    ) -> None:
        async with create_session_service(uri) as killed, create_session_service(uri) as writer:
            session, copy = await create(killed), await get(writer)
            kill_after(killed, operations, monkeypatch)
            with pytest.raises(Killed):
                await killed.append_event(session, event("said", own=1, user__a=2, app__b=3))
            with pytest.raises(StaleSessionError):
                await writer.append_event(copy, event("from a stale copy"))
            assert await writer.get_user_state(app_name=APP, user_id=USER) == {"a": 2}
            found = await get(writer)
            assert found.state == {"own": 1, "user:a": 2, "app:b": 3}

    async def test_an_append_that_did_not_begin_changed_nothing(
        self, uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with create_session_service(uri) as service:
            session = await create(service)
            kill_after(service, 0, monkeypatch)
            with pytest.raises(Killed):
                await service.append_event(session, event("said", own=1, user__a=2))
            found = await get(service)
            assert (found.events, found.state) == ([], {})

    @pytest.mark.parametrize("operations", [1, 2])
    async def test_what_is_finished_late_does_not_undo_what_came_since(
        self, uri: str, monkeypatch: pytest.MonkeyPatch, operations: int
    ) -> None:
        async with create_session_service(uri) as killed, create_session_service(uri) as writer:
            session, other = await create(killed), await create(writer, "other")
            kill_after(killed, operations, monkeypatch)
            with pytest.raises(Killed):
                await killed.append_event(
                    session, event(user__a="old", user__b="old", app__c="old")
                )
            await asyncio.sleep(0.01)
            await writer.append_event(other, event(user__a="new", app__c="new"))
            expected = {"user:a": "new", "user:b": "old", "app:c": "new"}
            assert (await get(writer)).state == expected

    async def test_the_later_of_two_events_of_a_session_counts(
        self, uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with create_session_service(uri) as killed, create_session_service(uri) as writer:
            session = await create(killed)
            kill_after(killed, 1, monkeypatch)
            with pytest.raises(Killed):
                await killed.append_event(session, event(user__a="first"))
            await writer.append_event(await get(writer), event(user__a="second"))
            assert (await get(killed)).state == {"user:a": "second"}

    @pytest.mark.parametrize("operations", [1, 2, 3])
    async def test_whoever_reads_next_finishes_a_creation(
        self, uri: str, monkeypatch: pytest.MonkeyPatch, operations: int
    ) -> None:
        async with create_session_service(uri) as killed, create_session_service(uri) as reader:
            kill_after(killed, operations, monkeypatch)
            with pytest.raises(Killed):
                await create(killed, state={"own": 1, "user:a": 2, "app:b": 3})
            assert (await get(reader)).state == {"own": 1, "user:a": 2, "app:b": 3}

    # close the log, end the head, empty the events
    @pytest.mark.parametrize("operations", [1, 2])
    async def test_a_deletion_can_be_taken_up_again(
        self, uri: str, documents: Documents, monkeypatch: pytest.MonkeyPatch, operations: int
    ) -> None:
        async with (
            create_session_service(uri, ttl=0) as killed,
            create_session_service(uri) as other,
        ):
            session = await create(killed)
            await killed.append_event(session, event("first"))
            copy = await get(other)
            kill_after(killed, operations, monkeypatch)
            names = {"app_name": APP, "user_id": USER, "session_id": SESSION}
            with pytest.raises(Killed):
                await killed.delete_session(**names)
            with pytest.raises(SessionNotFoundError):
                await other.append_event(copy, event("too late"))
            assert not await exists(other)
            assert (await other.list_sessions(app_name=APP, user_id=USER)).sessions == []
            await other.append_event(await create(other), event("anew"))
            assert texts(await get(other)) == ["anew"]
            await other.delete_session(**names)
            assert documents.count_documents({"data": {"$gt": b""}}) == 0

    async def test_writers_and_readers_at_the_same_time_agree(self, uri: str) -> None:
        """Readers finish what writers are about to do themselves: both may, and nothing is done twice."""

        async def write(name: str) -> None:
            async with create_session_service(uri) as service:
                for number in range(8):
                    while True:
                        session = await get(service)
                        try:
                            said = event(f"{name}{number}", app__last=number)
                            said.actions.state_delta[name] = number
                            await service.append_event(session, said)
                            break
                        except StaleSessionError:
                            continue

        async def read() -> None:
            async with create_session_service(uri) as service:
                for _ in range(30):
                    session = await get(service)
                    for name in "abc":
                        said = [text for text in texts(session) if text and text[0] == name]
                        assert session.state.get(name, -1) == len(said) - 1

        async with create_session_service(uri) as service:
            await create(service)
            await asyncio.gather(*map(write, "abc"), read(), read())
            session = await get(service)
        assert sorted(map(str, texts(session))) == sorted(
            f"{n}{i}" for n in "abc" for i in range(8)
        )


class TestDocuments:
    async def test_deleted_sessions_leave_nothing_for_long(
        self, uri: str, documents: Documents
    ) -> None:
        async with create_session_service(uri, ttl=0) as service:
            for session_id in ("first", "second"):
                session = await create(service, session_id, state={"own": "secret"})
                for _ in range(3):
                    await service.append_event(session, event("secret", more="secret"))
                await service.delete_session(app_name=APP, user_id=USER, session_id=session_id)
        left = list(documents.find({"_id": {"$ne": "schema"}}))
        assert len(left) == 2 * (1 + 3 + 1)
        for document in left:
            assert 0 < document["gone_at"].timestamp() - utc_now() < 3_700
        assert b"secret" not in b"".join(found["data"] for found in left if "data" in found)
        assert all(found["state"] == {} for found in left if found["place"] == HEAD)
        assert {found["place"] for found in left} == {CLOSED, HEAD}

    async def test_everything_of_a_session_is_removed_after_its_end(
        self, uri: str, documents: Documents
    ) -> None:
        async with create_session_service(uri, ttl=60) as service:
            session = await create(service, state={"user:kept": 1})
            for number in range(3):
                await service.append_event(session, event(str(number)))
        ends = utc_now() + 60
        (head,) = documents.find({"place": HEAD})
        assert head["gone_at"].timestamp() == pytest.approx(ends + 300, abs=30)
        for found in documents.find({"place": {"$gt": 0, "$lt": HEAD}}):
            assert ends + 300 < found["gone_at"].timestamp() < ends + 600
        removed = [index for index in documents.list_indexes() if "expireAfterSeconds" in index]
        assert [(dict(index["key"]), index["expireAfterSeconds"]) for index in removed] == [
            ({"gone_at": 1}, 0)
        ]
        kept = documents.find({"gone_at": {"$exists": False}, "_id": {"$ne": "schema"}})
        assert [found["name"] for found in kept] == ["kept"]

    async def test_events_stay_as_long_as_their_session(
        self, uri: str, documents: Documents
    ) -> None:
        """They are moved seldom, and never too late, however long the session lives."""
        moved = set()
        async with create_session_service(uri, ttl=60) as service:
            session = await create(service)
            try:
                for number in range(60):
                    ahead = number * 50
                    platform_time.set_time_provider(lambda: time.time() + ahead)  # noqa: B023
                    await service.append_event(session, event(str(number)))
                    (head,) = documents.find({"place": HEAD})
                    moved.add(head["keep"])
                    assert head["expires_at"] + 300 <= head["keep"]
                assert len((await get(service)).events) == 60
            finally:
                platform_time.reset_time_provider()
        assert len(moved) <= 10
        first = documents.find({"place": {"$gt": 0, "$lt": HEAD}}).sort("gone_at", 1)[0]
        assert first["gone_at"].timestamp() >= head["gone_at"].timestamp()

    async def test_a_writer_who_does_not_know_that_events_were_moved_learns_it(
        self, uri: str, documents: Documents
    ) -> None:
        async with create_session_service(uri, ttl=60) as service:
            session = await create(service)
            await service.append_event(session, event("first"))
            moved = documents.update_one({"place": HEAD}, {"$inc": {"keep": 1_000.0}})
            assert moved.modified_count == 1
            await service.append_event(session, event("second"))
            assert texts(await get(service)) == ["first", "second"]
        (head,) = documents.find({"place": HEAD})
        (second,) = documents.find({"place": 2})
        assert second["keep"] == head["keep"]
        assert second["gone_at"].timestamp() - utc_now() > 1_000

    async def test_a_session_without_end_has_nothing_removed(
        self, uri: str, documents: Documents
    ) -> None:
        async with create_session_service(uri, ttl=0) as service:
            await service.append_event(await create(service), event())
        assert documents.count_documents({"gone_at": {"$exists": True}}) == 0

    async def test_an_expired_session_makes_room_for_its_successor(
        self, uri: str, documents: Documents
    ) -> None:
        async with create_session_service(uri, ttl=60) as service:
            await service.append_event(await create(service), event("old", user__a=1))
            platform_time.set_time_provider(lambda: time.time() + 61)
            try:
                session = await create(service, state={"user:b": 2, "own": 3})
                await service.append_event(session, event("new"))
                found = await get(service, config=GetSessionConfig(num_recent_events=1))
            finally:
                platform_time.reset_time_provider()
        assert texts(found) == ["new"]
        assert found.state == {"own": 3, "user:a": 1, "user:b": 2}
        assert documents.count_documents({"place": CLOSED, "gone_at": {"$exists": True}}) == 1

    async def test_many_that_start_together_make_one_schema(
        self, uri: str, documents: Documents
    ) -> None:
        services = [create_session_service(uri) for _ in range(6)]
        await asyncio.gather(*(create(service, str(n)) for n, service in enumerate(services)))
        assert len((await services[0].list_sessions(app_name=APP)).sessions) == 6
        await asyncio.gather(*(service.close() for service in services))
        assert {index["name"] for index in documents.list_indexes()} == {
            *("_id_", "place", "owner", "gone_at")
        }
        assert documents.count_documents({"_id": "schema"}) == 1


class Commands(CommandListener):
    """Writes down what a client sends."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.sent.append(event.command_name)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass

    def take(self) -> list[str]:
        """Return what was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
async def watched(
    uri: str, documents: Documents
) -> AsyncIterator[tuple[Commands, PersistentSessionService]]:
    """A service whose commands are written down."""
    commands = Commands()
    url = uri.partition("?")[0].replace(SCHEME, "mongodb", 1)
    store = MongoDBStore(
        lambda: AsyncMongoClient(url, event_listeners=[commands]),
        location=url,
        database=documents.database.name,
        collection=documents.name,
    )
    async with PersistentSessionService(store, ttl=3_600) as service:
        await service.check()
        commands.take()
        yield commands, service


def lengthen(documents: Documents, length: int) -> None:
    """Repeat the first event of a session until it has so many, which is faster than appending."""
    (first,) = documents.find({"place": 1})
    log, _, _ = first["_id"].rpartition("/")
    copies = [first | {"_id": f"{log}/{n:012d}", "place": n} for n in range(2, length + 1)]
    documents.insert_many(copies)
    documents.update_one({"place": HEAD}, {"$set": {"revision": length}})


class TestRoundTrips:
    @pytest.mark.parametrize("length", [10, 1_000])
    async def test_an_append_costs_one_and_a_read_two_at_once(
        self,
        watched: tuple[Commands, PersistentSessionService],
        documents: Documents,
        length: int,
    ) -> None:
        commands, service = watched
        session = await create(service)
        assert commands.take() == ["update", "find"]
        await service.append_event(session, event("first"))
        assert commands.take() == ["update"]
        lengthen(documents, length)

        service.store._known.clear()  # type: ignore[attr-defined]
        session = await get(service)
        assert len(session.events) == length
        assert commands.take() == ["find", "find"]
        await service.append_event(session, event("last", timestamp=2, n=1, user__n=1, app__n=1))
        assert commands.take() == ["update"]
        assert (await get(service)).state == {"n": 1, "user:n": 1, "app:n": 1}
        assert commands.take() == ["find", "find"]

        service._warm.clear()
        found = await get(service, config=GetSessionConfig(num_recent_events=3))
        assert texts(found) == ["first", "first", "last"]
        assert commands.take() == ["find", "find"]
        found = await get(service, config=GetSessionConfig(after_timestamp=2))
        assert texts(found) == ["last"]
        assert commands.take() == ["find", "find", "find"]

    async def test_a_read_asks_again_for_state_that_another_process_has_changed(
        self, watched: tuple[Commands, PersistentSessionService], uri: str
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

    async def test_a_list_costs_one_for_a_user_and_two_for_all(
        self, watched: tuple[Commands, PersistentSessionService]
    ) -> None:
        commands, service = watched
        for user in ("ada", "grace"):
            for number in range(3):
                await create(service, str(number), user_id=user, state={"user:name": user})
        commands.take()
        listed = await service.list_sessions(app_name=APP, user_id="ada")
        assert commands.take() == ["find"]
        assert [session.state for session in listed.sessions] == [{"user:name": "ada"}] * 3
        listed = await service.list_sessions(app_name=APP)
        assert commands.take() == ["find", "find"]
        assert len(listed.sessions) == 6

    async def test_who_has_forgotten_a_session_reads_it_once_before_appending(
        self, watched: tuple[Commands, PersistentSessionService]
    ) -> None:
        commands, service = watched
        session = await create(service)
        service.store._known.clear()  # type: ignore[attr-defined]
        commands.take()
        await service.append_event(session, event())
        assert commands.take() == ["find", "update"]


class TestSizes:
    async def test_what_does_not_fit_is_refused_before_anything_is_written(
        self, service: PersistentSessionService
    ) -> None:
        session = await create(service)
        for large in (event("x" * (17 << 20)), event(own="x" * (9 << 20))):
            with pytest.raises(ValueError, match=r"a document of MongoDB holds") as refused:
                await service.append_event(session, large)
            assert "\n" not in str(refused.value)
            assert len(str(refused.value)) < 200
        with pytest.raises(ValueError, match="state of a new session"):
            await create(service, "large", state={"own": "x" * (17 << 20)})
        assert not await exists(service, "large")
        assert (session.events, session.state) == ([], {})
        await service.append_event(session, event("fits"))
        assert texts(await get(service)) == ["fits"]

    async def test_state_that_grows_too_large_is_refused_and_the_session_goes_on(
        self, service: PersistentSessionService
    ) -> None:
        session = await create(service)
        for name in "abcd":
            large = event(name)
            large.actions.state_delta[name] = "x" * (7 << 19)
            await service.append_event(session, large)
        with pytest.raises(ValueError, match="state of a session would take"):
            await service.append_event(session, event("e", e="x" * (7 << 19)))
        await service.append_event(session, event("f", f="small"))
        assert texts(await get(service)) == [*"abcdf"]

    async def test_a_conversation_may_be_larger_than_a_document(
        self, service: PersistentSessionService
    ) -> None:
        session = await create(service)
        for number in range(4):
            await service.append_event(session, event(str(number) + "x" * (6 << 20)))
        service._warm.clear()
        assert [text and text[0] for text in texts(await get(service))] == [*"0123"]


async def refusal(uri: str) -> str:
    """Return the sentence that a check of the URI ends with."""
    sentence = ""
    try:
        async with create_session_service(uri) as service:
            await service.check()
            await create(service)
    except SessionStoreError as error:
        sentence = str(error)
    with warnings.catch_warnings():
        # A driver that is closed while it connects leaves the socket to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    assert "MongoDB" in sentence
    assert sentence.endswith(".")
    assert sentence.count("\n") == 0
    assert len(sentence) < 300
    return sentence


class TestErrors:
    async def test_nobody_listens(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            said = await refusal(f"{SCHEME}://127.0.0.1:{port}/adk?timeoutMS=300")
        assert "cannot be reached" in said

    async def test_somebody_listens_and_never_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            said = await refusal(f"{SCHEME}://127.0.0.1:{port}/adk?timeoutMS=300")
        assert "did not answer in time" in said

    async def test_another_replica_set(self, own_uri: str) -> None:
        said = await refusal(f"{own_uri}?replicaSet=other&timeoutMS=300")
        assert "check replicaSet" in said

    async def test_no_tls_where_tls_is_asked_for(self, own_uri: str) -> None:
        assert "tls" in await refusal(f"{own_uri}?tls=true&timeoutMS=500")

    def test_credentials_and_permissions(self, tmp_path: Any) -> None:
        with server.serve(tmp_path, SCHEME) as uri:
            admin = server.connect(uri, SCHEME)["admin"]
            for name, role in (("writer", "readWrite"), ("reader", "read")):
                roles = [{"role": role, "db": "adk"}]
                admin.command({"createUser": name, "pwd": PHRASE, "roles": roles})
        with server.serve(tmp_path, SCHEME, "--auth") as uri:
            asyncio.run(self._credentials_and_permissions(uri))

    async def _credentials_and_permissions(self, uri: str) -> None:
        quoted = quote(PHRASE, safe="")
        for credentials in ("writer:wrong@", f"nobody:{quoted}@"):
            said = await refusal(f"{uri}?authSource=admin".replace("://", f"://{credentials}"))
            assert "refuses the credentials" in said
            assert "wrong" not in said
        right = uri.replace("://", f"://writer:{quoted}@")
        assert "refuses the credentials" in await refusal(right), "not kept in this database"
        assert "wants a user and a password" in await refusal(uri)
        async with create_session_service(f"{right}?authSource=admin") as service:
            assert PHRASE not in str(service)
            assert quoted not in str(service)
            await service.check()
            await create(service)
        reader = uri.replace("://", f"://reader:{quoted}@")
        assert "lacks permission" in await refusal(f"{reader}?authSource=admin")

    @pytest.mark.parametrize(
        ("code", "mend"),
        [
            (14031, "its disk is full"),
            (10107, "it is not the primary"),
            (64, "too few of its members"),
        ],
    )
    async def test_what_the_server_answers_is_put_into_a_sentence(
        self,
        own_corner: str,
        own_server: "MongoClient[dict[str, Any]]",
        code: int,
        mend: str,
    ) -> None:
        async with create_session_service(own_corner, timeoutMS=1_000) as service:
            session = await create(service)
            fail(own_server, ["update"], errorCode=code)
            with pytest.raises(StoreUnavailable, match=mend):
                await service.append_event(session, event("refused", own=1))
            assert (session.events, session.state) == ([], {})
        own_server.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        async with create_session_service(own_corner) as service:
            await service.append_event(session, event("accepted"))
            assert texts(await get(service)) == ["accepted"]

    async def test_documents_of_another_program_are_left_alone(
        self, uri: str, documents: Documents
    ) -> None:
        documents.insert_one({"_id": "theirs"})
        assert "documents of another program" in await refusal(uri)
        assert list(documents.find()) == [{"_id": "theirs"}]
        assert len(list(documents.list_indexes())) == 1

    async def test_a_schema_of_another_version(self, uri: str, documents: Documents) -> None:
        documents.insert_one({"_id": "schema", "version": 99})
        assert "another version of this program (schema 99" in await refusal(uri)

    @pytest.mark.parametrize(
        "uri",
        [
            "host/a.b",
            "host/a/b",
            "host/db?collection=",
            "host/db?collection=system.users",
            "host/db?collection=a$b",
            "host/db?w=0",
            "host/db?readPreference=secondary",
            "host/db?maxPoolSize=many",
            "host/db?tls=maybe",
            "host/db?replicaset=rs0",
            "host:port/db",
            "user:secret@host/db?authMechanism=MAGIC",
            "user:secret@host/db?tlsCAFile=/nowhere/ca.pem",
        ],
    )
    def test_uris_that_cannot_work_are_refused_at_once(self, uri: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            create_session_service(f"{SCHEME}://{uri}")
        assert "secret" not in str(refused.value)

    async def test_a_name_that_dns_does_not_know(self) -> None:
        said = await refusal(f"{SCHEME}+srv://nobody.invalid/adk?timeoutMS=500")
        assert "nobody.invalid" in said

    def test_the_options_of_atlas_are_known(self) -> None:
        options = "retryWrites=true&w=majority&appName=Cluster0&readPreference=primary"
        service = create_session_service(f"{SCHEME}+srv://u:secret@c.example.com/?{options}")
        assert "at c.example.com/adk," in str(service)


class TestBadWeather:
    @pytest.mark.parametrize("weather", [Weather.LOSE_REPLY, Weather.CUT_REPLY])
    async def test_a_lost_reply_does_not_double_an_event(
        self, proxied: tuple[Proxy, PersistentSessionService], weather: Weather
    ) -> None:
        between, service = proxied
        session = await create(service)
        between.weather = weather
        said = event("said", n=1)
        with pytest.raises(StoreUnavailable):
            await service.append_event(session, said)
        between.weather = Weather.FINE
        await service.append_event(session, said)
        assert texts(session) == texts(await get(service)) == ["said"]

    async def test_silence_is_given_up_and_a_server_that_comes_back_is_used_again(
        self, proxied: tuple[Proxy, PersistentSessionService]
    ) -> None:
        between, service = proxied
        await create(service)
        for weather, said in (
            (Weather.SILENCE, "did not answer in time"),
            (Weather.REFUSE, "reached|closed the connection"),
        ):
            between.weather = weather
            with pytest.raises(StoreUnavailable, match=said):
                await get(service)
            between.weather = Weather.FINE
            assert await _exists_in_the_end(service)

    async def test_a_dropped_connection_is_replaced(
        self, own_corner: str, own_server: "MongoClient[dict[str, Any]]"
    ) -> None:
        async with create_session_service(own_corner) as service:
            session = await create(service)
            data = {"failCommands": ["update", "find"], "closeConnection": True}
            once = {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data}
            own_server.admin.command(once)
            await service.append_event(session, event("said"))
            own_server.admin.command(once)
            assert texts(await get(service)) == ["said"]


async def _exists_in_the_end(service: PersistentSessionService) -> bool:
    """Ask until the driver has seen that its server is back."""
    for _ in range(30):
        try:
            return await exists(service)
        except StoreUnavailable:
            await asyncio.sleep(0.1)
    return await exists(service)


def utc_now() -> float:
    """Return the seconds that a naive date of the database would have now."""
    from datetime import UTC, datetime

    return datetime.now(UTC).replace(tzinfo=None).timestamp()
