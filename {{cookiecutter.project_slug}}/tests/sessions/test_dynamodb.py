"""What is special about DynamoDB: its table, costs, limits, errors and settings."""

import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from google.adk.errors import StaleSessionError
from google.adk.platform import time as platform_time
from google.adk.sessions.base_session_service import GetSessionConfig

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.commands.cli import sessions
from {{ cookiecutter.__package }}.sessions.commands.doctor import doctor
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    SessionStoreError,
    StoreUnavailable,
)
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import dynamodb as server
from ..servers.dynamodb import options_of, stored_items, with_options
from ..servers.dynamodb_proxy import CONFLICT, DynamoDBProxy, error, run_proxy
from .support import (
    APP,
    MARK,
    SESSION,
    USER,
    create,
    event,
    get,
    plant_and_erase,
    texts,
    until,
)

WRITE, READ, QUERY = "TransactWriteItems", "TransactGetItems", "Query"


@pytest.fixture
async def proxy(uri: str) -> AsyncIterator[DynamoDBProxy]:
    """A proxy in front of DynamoDB, for one test."""
    if "endpoint_url" not in options_of(uri):
        pytest.skip("DynamoDB itself refuses calls that were sent to another host.")
    async with run_proxy(uri) as proxy:
        yield proxy


@pytest.fixture
async def proxied(proxy: DynamoDBProxy) -> AsyncIterator[PersistentSessionService]:
    """A service that goes through the proxy. Its first use and first cleanup are over."""
    async with create_session_service(proxy.uri) as service:
        await create(service, "first")
        await cleaned_up(service)
        proxy.requests.clear()
        yield service


@pytest.fixture
def new_table(uri: str) -> Iterator[str]:
    """The session URI of a table that does not exist yet."""
    table = f"test-{token_hex(8)}"
    credentials, at, _ = urlsplit(uri).netloc.rpartition("@")
    own = urlsplit(uri)._replace(netloc=f"{credentials}{at}{table}").geturl()
    yield with_options(own, create_table=None)
    sdk = server.client(uri)
    if table in sdk.get_paginator("list_tables").paginate().search("TableNames"):
        sdk.delete_table(TableName=table)


async def cleaned_up(service: Any) -> None:
    """Wait until the store has finished its background cleanup."""
    await until(lambda: not service.store.innermost._cleanup.tasks)


async def failed_check(uri: str, kind: type[SessionStoreError] = StoreUnavailable) -> str:
    """Return the error of `check`."""
    async with create_session_service(uri) as service:
        with pytest.raises(kind) as caught:
            await service.check()
    sentence = str(caught.value)
    assert sentence.startswith("DynamoDB table ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


class TestTable:
    async def test_missing_table_is_not_created_by_default(self, new_table: str) -> None:
        assert "no such table; create it with `sessions init`" in await failed_check(new_table)

    def test_reading_commands_do_not_create_the_table(self, new_table: str) -> None:
        uri = with_options(new_table, create_table="true")
        result = CliRunner().invoke(sessions, ["list", "--uri", uri])
        assert result.exit_code == 1
        assert "does not exist: it is created with the first session" in result.stderr
        assert "does not exist" in CliRunner().invoke(doctor, ["--uri", uri]).stdout
        tables = server.client(uri).get_paginator("list_tables").paginate().search("TableNames")
        assert server.table_name(uri) not in tables

    async def test_init_creates_an_on_demand_table_with_ttl(self, new_table: str) -> None:
        async with create_session_service(new_table) as service:
            for _ in range(2):
                await service.prepare()
        sdk, name = server.client(new_table), server.table_name(new_table)
        table = sdk.describe_table(TableName=name)["Table"]
        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        ttl = sdk.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "purge_at"}

    async def test_table_with_other_keys_is_refused(self, new_table: str) -> None:
        server.client(new_table).create_table(
            TableName=server.table_name(new_table),
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        )
        assert "its keys are not pk and sk" in await failed_check(new_table)

    async def test_check_writes_nothing(self, uri: str) -> None:
        async with create_session_service(uri) as service:
            await service.check()
        assert stored_items(uri) == {}


class TestItems:
    @pytest.mark.usefixtures("clear_text")
    async def test_events_and_state_scopes_are_items(
        self, service: PersistentSessionService, uri: str
    ) -> None:
        session = await create(service, ttl=0, state={"own": 1})
        for number in (1, 2):
            await service.append_event(session, event(own=number, user__n=number, app__n=number))
        kinds = [(pk.split("/")[0], sk.split("/")[0]) for pk, sk in stored_items(uri)]
        assert sorted(kinds) == [
            ("app", "state"),
            ("events", "000000000001"),
            ("events", "000000000002"),
            ("index", "never"),
            ("user", "head"),
            ("user", "state"),
            ("user", "state"),
        ]
        await service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert stored_items(uri).keys() == {
            ("app/app", "state"),
            ("user/app/user", "state"),
            ("users/app", "user/user"),
        }

    @pytest.mark.usefixtures("clear_text")
    async def test_expired_session_leaves_no_items(
        self, service: PersistentSessionService, uri: str
    ) -> None:
        """DynamoDB removes the head by `purge_at`. The emulator does not, so this test does."""
        session: Any = await create(service, ttl="1h", state={"own": 1})
        await service.append_event(session, event())
        [head] = [item for (_, sk), item in stored_items(uri).items() if sk.startswith("head/")]
        assert 300 < int(head["purge_at"]["N"]) - session.expires_at <= 301
        platform_time.set_time_provider(lambda: time.time() + 3_600 + 310)
        try:
            async with create_session_service(uri) as later:
                await create(later, "another")
                await cleaned_up(later)
        finally:
            platform_time.reset_time_provider()
        left = stored_items(uri)
        assert len(left) == 3
        assert not [keys for keys in left if SESSION in "".join(keys)]


@pytest.mark.filterwarnings("ignore:Sending a large body")
class TestLimits:
    async def test_large_event_is_stored_in_one_request(
        self, proxied: PersistentSessionService, proxy: DynamoDBProxy
    ) -> None:
        session = await create(proxied)
        large = ["a" * 1_000_000, "small", "b" * 400_000]
        for text in large:
            proxy.count()
            await proxied.append_event(session, event(text))
            assert proxy.count() == {WRITE: 1}
        async with create_session_service(proxy.uri) as cold:
            last = await get(cold, config=GetSessionConfig(num_recent_events=2))
            assert texts(last) == large[-2:]
            assert texts(await get(cold)) == large

    @pytest.mark.parametrize(
        ("delta", "text", "match"),
        [
            ({}, "x" * 3_600_000, "keep large files as artifacts"),
            ({"key": "x" * 500_000}, "", "400 KB for the state"),
            ({f"app:{number}": 1 for number in range(500)}, "", "at once. DynamoDB allows 400"),
            ({"x" * 70_000: 1}, "", "too long for DynamoDB"),
        ],
        ids=["event", "state", "keys", "key"],
    )
    async def test_oversized_change_is_refused(
        self, service: PersistentSessionService, delta: dict[str, Any], text: str, match: str
    ) -> None:
        session = await create(service, state={"before": 1})
        refused = event(text, own=1)
        refused.actions.state_delta |= delta
        with pytest.raises(ValueError, match=match) as caught:
            await service.append_event(session, refused)
        assert not isinstance(caught.value, SessionStoreError | StaleSessionError)
        for copy in (session, await get(service)):
            assert (copy.events, copy.state) == ([], {"before": 1})


@pytest.mark.parametrize("length", [5, 50])
async def test_cost_does_not_depend_on_session_length(
    proxied: PersistentSessionService, proxy: DynamoDBProxy, length: int
) -> None:
    """The numbers of requests are those of the README."""
    session = await create(proxied)
    for number in range(length):
        await proxied.append_event(session, event(str(number)))
    proxy.count()
    await proxied.append_event(session, event("more", own=1, user__n=1, app__n=1))
    assert proxy.count() == {WRITE: 1}
    assert len((await get(proxied)).events) == length + 1
    assert proxy.count() == {READ: 1, QUERY: 1}
    async with create_session_service(proxy.uri) as cold:
        await get(cold, config=GetSessionConfig(num_recent_events=5))
        assert proxy.count() == {READ: 1, QUERY: 1, "GetItem": 1}
    await proxied.list_sessions(app_name=APP, user_id=USER)
    assert proxy.count() == {QUERY: 1, "GetItem": 1}
    await proxied.list_sessions(app_name=APP)
    assert proxy.count() == {QUERY: 1, "GetItem": 1, "BatchGetItem": 1}
    await create(proxied, "another")
    assert proxy.count() == {WRITE: 1, READ: 1}
    await proxied.delete_session(app_name=APP, user_id=USER, session_id="another")
    assert proxy.count() == {"GetItem": 1, WRITE: 1}


class TestErrors:
    @pytest.mark.parametrize("reply", [error("ThrottlingException"), CONFLICT])
    async def test_throttled_and_conflicting_writes_are_retried(
        self, proxied: PersistentSessionService, proxy: DynamoDBProxy, reply: Any
    ) -> None:
        session = await create(proxied)
        proxy.answer_next(WRITE, reply, reply)
        await proxied.append_event(session, event("later"))
        assert texts(await get(proxied)) == ["later"]

    async def test_check_names_a_missing_permission(self, proxy: DynamoDBProxy) -> None:
        arn = "arn:aws:iam::123456789012:user/ada"
        message = f"User: {arn} is not authorized to perform: dynamodb:PutItem on resource: {arn}"
        for operation in ("GetItem", WRITE, QUERY, "BatchGetItem", "BatchWriteItem"):
            proxy.answer_next(operation, error("AccessDeniedException", message=message))
            sentence = await failed_check(proxy.uri)
            assert "dynamodb:PutItem is not allowed; grant" in sentence
            assert "arn:" not in sentence

    async def test_unreachable_endpoint_is_reported(self, uri: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
            slow = with_options(uri, endpoint_url=endpoint, timeout=0.3)
            assert "did not answer in time" in await failed_check(slow)
        assert "cannot be reached" in await failed_check(
            with_options(uri, endpoint_url=endpoint, timeout=5)
        )

    @pytest.mark.parametrize(
        "rest",
        ["", "no", "a b c", "sessions/a/b", "sessions/é", "key@sessions", "sessions?timeout=0"],
    )
    def test_invalid_uri_is_refused(self, rest: str) -> None:
        with pytest.raises(ConfigurationError):
            create_session_service(f"{SCHEME}://{rest}")


class TestSettings:
    """The SDK's own settings complete the URI."""

    @pytest.fixture(autouse=True)
    def no_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, os.devnull)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    async def test_missing_setting_is_reported(self, uri: str) -> None:
        parts = urlsplit(uri)
        keyless = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        for incomplete, sentence in (
            (keyless, "finds no credentials"),
            (with_options(uri, region=None), "no region is set"),
            (with_options(uri, profile="missing"), "unknown profile"),
        ):
            assert sentence in await failed_check(incomplete, ConfigurationError)

    async def test_loopback_ignores_the_proxy(
        self, uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if urlsplit(options_of(uri).get("endpoint_url")).hostname not in ("localhost", "127.0.0.1"):
            pytest.skip("DynamoDB is on another machine.")
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        async with create_session_service(uri) as service:
            await service.check()


async def test_erased_data_is_in_no_item(service: PersistentSessionService, uri: str) -> None:
    await plant_and_erase(service)
    assert [key for key, item in stored_items(uri).items() if MARK in f"{key} {item}"] == []
