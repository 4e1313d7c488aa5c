"""DynamoDB: forks, concurrent first use, and unusual tables and settings."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import pytest

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.dynamodb.items import (
    MAX_CHANGED_KEYS,
    state_updates,
)
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    StoreUnavailable,
)

from ..servers import dynamodb as server
from ..servers.dynamodb import options_of, with_options
from ..servers.dynamodb_proxy import DynamoDBProxy, error, run_proxy
from ..sessions.support import APP, USER, create, event, exists, get, texts, until

WRITE, READ = "TransactWriteItems", "TransactGetItems"


@pytest.fixture
async def proxy(uri: str) -> AsyncIterator[DynamoDBProxy]:
    """A proxy in front of DynamoDB, for one test."""
    if "endpoint_url" not in options_of(uri):
        pytest.skip("DynamoDB itself refuses calls that were sent to another host.")
    async with run_proxy(uri) as proxy:
        yield proxy


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings of the SDK."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def test_service_works_in_a_forked_child(uri: str) -> None:
    service = create_session_service(uri)

    async def append(text: str) -> list[str | None]:
        session = await get(service) if await exists(service) else await create(service)
        await service.append_event(session, event(text))
        return texts(session)

    assert asyncio.run(append("parent")) == ["parent"]
    child = os.fork()
    if not child:
        try:
            os._exit(asyncio.run(append("child")) != ["parent", "child"])
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert asyncio.run(append("parent again")) == ["parent", "child", "parent again"]


async def test_concurrent_first_use_creates_one_table(uri: str) -> None:
    credentials, at, _ = urlsplit(uri).netloc.rpartition("@")
    table = f"test-{token_hex(8)}"
    own = urlsplit(uri)._replace(netloc=f"{credentials}{at}{table}").geturl()
    services = [create_session_service(with_options(own, create_table="true")) for _ in range(4)]
    try:
        await asyncio.gather(*(create(each, f"s{n}") for n, each in enumerate(services)))
        listed = await services[0].list_sessions(app_name=APP, user_id=USER)
        assert len(listed.sessions) == len(services)
    finally:
        for service in services:
            await service.close()
        server.client(uri).delete_table(TableName=table)


async def test_table_of_a_newer_version_is_refused(uri: str) -> None:
    async with create_session_service(uri) as service:
        await service.check()
    prefix = urlsplit(uri).path.strip("/")
    item = {"pk": {"S": f"{prefix}/schema"}, "sk": {"S": "version"}, "number": {"N": "2"}}
    server.client(uri).put_item(TableName=server.table_name(uri), Item=item)
    async with create_session_service(uri) as service:
        with pytest.raises(ConfigurationError, match="newer version"):
            await create(service)


async def test_missing_ttl_is_set_in_one_request(proxy: DynamoDBProxy) -> None:
    async with create_session_service(proxy.uri) as service:
        session: Any = await create(service, ttl="2h")
        await create(service, "other", ttl="1h")
        store: Any = service.store.innermost
        await until(lambda: not store._cleanup.tasks)
        store._ttls.clear()
        for cost in (2, 1):
            proxy.count()
            await service.append_event(session, event())
            assert proxy.count() == {WRITE: cost}
        assert session.ttl == 7_200
        assert session.expires_at == pytest.approx(time.time() + 7_200, abs=60)


async def test_one_append_may_change_many_keys(uri: str) -> None:
    async with create_session_service(uri) as service:
        session, said = await create(service), event()
        said.actions.state_delta = {f"user:key {number}": number for number in range(100)}
        await service.append_event(session, said)
        assert (await get(service)).state == said.actions.state_delta
    state = {str(number): b"" for number in range(MAX_CHANGED_KEYS)}
    [(_, update)] = state_updates({}, state)
    assert len(update["UpdateExpression"]) <= 4_096


async def test_oversized_state_is_refused(uri: str) -> None:
    async with create_session_service(uri) as service:
        session = await create(service, state={"user:first": "x" * 300_000})
        with pytest.raises(ValueError, match="400 KB for the state"):
            await service.append_event(session, event(user__second="x" * 200_000, own=1))
        assert (await get(service)).state.keys() == {"user:first"}


async def test_endpoint_region_and_credentials_may_come_from_the_environment(
    proxy: DynamoDBProxy, no_settings: pytest.MonkeyPatch
) -> None:
    parts, options = urlsplit(proxy.uri), options_of(proxy.uri)
    no_settings.setenv("AWS_ENDPOINT_URL_DYNAMODB", options["endpoint_url"])
    no_settings.setenv("AWS_DEFAULT_REGION", options["region"])
    no_settings.setenv("AWS_ACCESS_KEY_ID", parts.username or "")
    no_settings.setenv("AWS_SECRET_ACCESS_KEY", parts.password or "")
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    async with create_session_service(
        with_options(bare, endpoint_url=None, region=None)
    ) as service:
        await create(service)
        assert await exists(service)
    assert proxy.count()[READ]


async def test_number_of_tries_may_come_from_the_environment(
    proxy: DynamoDBProxy, no_settings: pytest.MonkeyPatch
) -> None:
    no_settings.setenv("AWS_MAX_ATTEMPTS", "2")
    async with create_session_service(proxy.uri) as service:
        session = await create(service)
        store: Any = service.store.innermost
        await until(lambda: not store._cleanup.tasks)
        proxy.count()
        proxy.answer_next(WRITE, *[error("ThrottlingException")] * 2)
        with pytest.raises(StoreUnavailable, match="throttled"):
            await service.append_event(session, event())
        assert proxy.count() == {WRITE: 2}


async def test_tls_to_a_plain_endpoint_is_reported(
    proxy: DynamoDBProxy, no_settings: pytest.MonkeyPatch
) -> None:
    no_settings.setenv("AWS_MAX_ATTEMPTS", "1")
    endpoint = options_of(proxy.uri)["endpoint_url"].replace("http:", "https:")
    async with create_session_service(with_options(proxy.uri, endpoint_url=endpoint)) as service:
        with pytest.raises(StoreUnavailable, match="TLS failed"):
            await service.check()


@pytest.mark.parametrize(
    ("code", "message", "match"),
    [
        ("UnrecognizedClientException", "The security token is invalid", "the credentials;"),
        ("InvalidSignatureException", "Signature expired", "the secret key and this machine's"),
        ("ExpiredTokenException", "expired", "have expired; renew them"),
        ("AccessDeniedException", "no", "access is denied; grant"),
        ("SomethingNew", "in two\nlines", "SomethingNew: in two lines"),
    ],
)
async def test_error_reply_becomes_one_sentence(
    proxy: DynamoDBProxy, code: str, message: str, match: str
) -> None:
    async with create_session_service(proxy.uri) as service:
        session = await create(service)
        proxy.answer_next(WRITE, error(code, message=message))
        with pytest.raises(StoreUnavailable, match=match) as caught:
            await service.append_event(session, event("no", own=1))
    assert "\n" not in str(caught.value)
    assert (session.events, session.state) == ([], {})


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://u:secret@h"])
def test_invalid_endpoint_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="endpoint_url"):
        create_session_service(f"{SCHEME}://sessions", endpoint_url=url)
