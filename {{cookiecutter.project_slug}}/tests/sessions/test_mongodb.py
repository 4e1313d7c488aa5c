"""What is special about MongoDB: its collection, TTL index, kinds of servers, errors and URIs."""

import asyncio
import gc
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    SessionStoreError,
    StoreUnavailable,
)

from ..servers import mongodb as server
from ..servers import namespace
from .support import APP, MARK, SESSION, USER, create, event, get, plant_and_erase, texts

Documents = Collection[dict[str, Any]]
Client = MongoClient[dict[str, Any]]
Serve = Callable[..., AbstractContextManager[str]]

PASSWORD = "p@ss/word, not a real one"  # noqa: S105


@pytest.fixture
def documents(uri: str) -> Documents:
    """The collection of a test."""
    return server.collection(uri, SCHEME)


@pytest.fixture(scope="module", params=[server.serve, server.serve_standalone])
def own_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A replica set and a standalone server, both with fail points."""
    serve: Serve = request.param
    with serve(tmp_path_factory.mktemp("own"), SCHEME, "--enable-test-commands") as uri:
        yield uri


@pytest.fixture
def own(own_server: str) -> Iterator[tuple[str, Client]]:
    """A namespace on that server, and a client that sets fail points. They are off in the end."""
    client = server.connect(own_server, SCHEME)
    with namespace(own_server) as uri:
        yield uri, client
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def fail(client: Client, commands: Sequence[str], mode: Any, **how: Any) -> None:
    """Make these commands of session services fail."""
    data = {"failCommands": list(commands), "appName": "adk-sessions", **how}
    client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})


class TestCollection:
    @pytest.mark.usefixtures("clear_text")
    async def test_head_events_and_shared_state_are_separate_documents(
        self, uri: str, documents: Documents
    ) -> None:
        async with create_session_service(uri) as service:
            session = await create(service, state={"own": 1, "user:a": 2})
            await service.append_event(session, event("first", own=3, app__b=4))
        (head,) = documents.find({"session_id": SESSION})
        assert (head["app_name"], head["user_id"], head["revision"]) == (APP, USER, 1)
        assert set(head["state"]) == {"_own"}
        (stored,) = documents.find({"data": {"$exists": True}})
        assert (stored["scope"], stored["log"], stored["order"]) == (head["scope"], head["log"], 1)
        assert {found["name"] for found in documents.find({"value": {"$exists": True}})} == {*"ab"}

    async def test_indexes_serve_reads_lists_and_removal(
        self, uri: str, documents: Documents
    ) -> None:
        async with create_session_service(uri) as service:
            await create(service)
        indexes = {index["name"]: index for index in documents.list_indexes()}
        assert {*indexes} == {"_id_", "scope", "owner", "remove_at"}
        assert indexes["remove_at"]["expireAfterSeconds"] == 0

    async def test_newer_format_is_refused_and_unchanged(
        self, uri: str, documents: Documents
    ) -> None:
        documents.insert_one({"_id": "schema", "version": 99})
        assert "has format 99" in await refusal(uri)
        assert list(documents.find()) == [{"_id": "schema", "version": 99}]

    async def test_documents_of_another_program_are_refused_and_unchanged(
        self, uri: str, documents: Documents
    ) -> None:
        documents.insert_one({"_id": "theirs"})
        assert "documents of another program" in await refusal(uri)
        assert list(documents.find()) == [{"_id": "theirs"}]
        assert len(list(documents.list_indexes())) == 1


@pytest.mark.usefixtures("clear_text")
class TestRemoval:
    async def test_server_removes_expired_sessions_and_keeps_user_state(
        self, uri: str, documents: Documents
    ) -> None:
        """The TTL index removes the head first and the events later, by the server's clock."""
        async with create_session_service(uri, ttl=60) as service:
            session = await create(service, state={"user:kept": 1})
            for number in range(3):
                await service.append_event(session, event(str(number)))
        (head,) = documents.find({"session_id": SESSION})
        assert ends_in(head) == pytest.approx(60 + 300, abs=30)
        for found in documents.find({"data": {"$exists": True}}):
            assert ends_in(head) < ends_in(found) < 60 + 300 + 240
        kept = documents.find({"remove_at": {"$exists": False}, "_id": {"$ne": "schema"}})
        assert [found["name"] for found in kept] == ["kept"]

    async def test_session_without_ttl_is_never_removed(
        self, uri: str, documents: Documents
    ) -> None:
        async with create_session_service(uri, ttl=0) as service:
            await service.append_event(await create(service), event())
        assert documents.count_documents({"remove_at": {"$exists": True}}) == 0

    async def test_deleted_session_leaves_only_shared_state(
        self, uri: str, documents: Documents
    ) -> None:
        async with create_session_service(uri) as service:
            session = await create(service, state={"own": 1, "user:kept": 2})
            await service.append_event(session, event("first"))
            await service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        left = documents.find({"_id": {"$ne": "schema"}})
        assert [found.get("name") for found in left] == ["kept"]


def ends_in(document: dict[str, Any]) -> float:
    """Return the seconds until the server removes a document."""
    moment: datetime = document["remove_at"]
    return (moment.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()


class TestServers:
    """On a replica set and on a standalone server."""

    async def test_dropped_connection_is_replaced(self, own: tuple[str, Client]) -> None:
        """A replica set retries writes. On a standalone server, the caller must append again."""
        uri, client = own
        async with create_session_service(uri) as service:
            session, said = await create(service), event("said")
            fail(client, ["update", "find"], {"times": 1}, closeConnection=True)
            if "setName" not in client.admin.command("hello"):
                with pytest.raises(StoreUnavailable):
                    await service.append_event(session, said)
            await service.append_event(session, said)
            fail(client, ["update", "find"], {"times": 1}, closeConnection=True)
            assert texts(await get(service)) == ["said"]

    @pytest.mark.parametrize(
        ("code", "hint"), [(14031, "disk is full"), (10107, "not the primary"), (64, "too few")]
    )
    async def test_server_errors_are_explained(
        self, own: tuple[str, Client], code: int, hint: str
    ) -> None:
        uri, client = own
        async with create_session_service(uri, timeoutMS=3_000) as service:
            session = await create(service)
            fail(client, ["update"], "alwaysOn", errorCode=code)
            with pytest.raises(StoreUnavailable, match=hint):
                await service.append_event(session, event("refused", own=1))
        assert (session.events, session.state) == ([], {})

    @pytest.mark.parametrize("option", ["replicaSet=other", "tls=true"])
    async def test_unsupported_option_is_named(self, own_server: str, option: str) -> None:
        assert option.partition("=")[0] in await refusal(f"{own_server}?{option}&timeoutMS=500")


class TestErrors:
    async def test_silent_server(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            said = await refusal(f"{SCHEME}://127.0.0.1:{port}/adk?timeoutMS=300")
        assert "did not answer in time" in said

    async def test_unknown_host_name(self) -> None:
        said = await refusal(f"{SCHEME}+srv://nobody.invalid/adk?timeoutMS=500")
        assert "nobody.invalid" in said

    def test_wrong_credentials_and_missing_permissions(self, tmp_path: Path) -> None:
        with server.serve(tmp_path, SCHEME) as uri:
            admin = server.connect(uri, SCHEME)["admin"]
            for name, role in (("writer", "readWrite"), ("reader", "read")):
                roles = [{"role": role, "db": "adk"}]
                admin.command({"createUser": name, "pwd": PASSWORD, "roles": roles})
        with server.serve(tmp_path, SCHEME, "--auth") as uri:
            asyncio.run(self._try_credentials(uri))

    async def _try_credentials(self, uri: str) -> None:
        quoted = quote(PASSWORD, safe="")
        for credentials in ("writer:wrong@", f"nobody:{quoted}@"):
            said = await refusal(f"{uri}?authSource=admin".replace("://", f"://{credentials}"))
            assert "refuses the credentials" in said
            assert "wrong" not in said
        right = uri.replace("://", f"://writer:{quoted}@")
        assert "refuses the credentials" in await refusal(right), "not kept in this database"
        assert "wants a user and a password" in await refusal(uri)
        async with create_session_service(f"{right}?authSource=admin") as service:
            assert PASSWORD not in str(service)
            assert quoted not in str(service)
            await service.check()
            await create(service)
        reader = uri.replace("://", f"://reader:{quoted}@")
        assert "lacks permission" in await refusal(f"{reader}?authSource=admin")


async def refusal(uri: str) -> str:
    """Return the error of a check of the URI."""
    sentence = ""
    try:
        async with create_session_service(uri) as service:
            await service.check()
            await create(service)
    except SessionStoreError as error:
        sentence = str(error)
    with warnings.catch_warnings():
        # If the driver is closed while it connects, it leaves the socket to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    assert "MongoDB" in sentence
    assert sentence.endswith(".")
    assert sentence.count("\n") == 0
    assert len(sentence) < 300
    return sentence


class TestURI:
    @pytest.mark.parametrize(
        "uri",
        [
            "host/a.b",
            "host/a/b",
            "host/db?collection=",
            "host/db?collection=a$b",
            "host/db?w=0&journal=false",
            "host/db?readPreference=secondary",
            "host/db?maxPoolSize=many",
            "host/db?tls=maybe",
            "host/db?replicaset=rs0",
            "user:secret@host/db?authMechanism=MAGIC",
            "user:secret@host/db?tlsCAFile=/nowhere/ca.pem",
        ],
    )
    def test_invalid_uri_is_refused(self, uri: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            create_session_service(f"{SCHEME}://{uri}")
        assert "secret" not in str(refused.value)

    def test_atlas_options_are_accepted(self) -> None:
        options = "retryWrites=true&w=majority&appName=Cluster0&readPreference=primary"
        service = create_session_service(f"{SCHEME}+srv://u:secret@c.example.com/?{options}")
        assert "at c.example.com/adk," in str(service)


async def test_erased_data_is_in_no_document(uri: str, documents: Documents) -> None:
    async with create_session_service(uri) as service:
        await plant_and_erase(service)
    assert [each for each in documents.find() if MARK in repr(each)] == []
    assert documents.count_documents({"owner": {"$exists": True}}) == 1
