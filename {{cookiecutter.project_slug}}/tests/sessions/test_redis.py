"""What is special about Redis: keys, round trips, connections and errors."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import trustme
from redis.crc import key_slot

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    StoreUnavailable,
)
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import proxy
from ..servers import redis as server
from ..servers.proxy import Proxy
from .support import (
    APP,
    MARK,
    USER,
    create,
    event,
    exists,
    get,
    plant_and_erase,
    texts,
    until,
)


@pytest.fixture
def own_uri(tmp_path: Path) -> Iterator[str]:
    """A server of its own, which a test may break."""
    with server.serve(tmp_path, SCHEME) as uri:
        yield uri


@pytest.fixture
def own_server(own_uri: str) -> Iterator["redis.Redis"]:
    """A client of that server."""
    with redis.Redis(port=urlsplit(own_uri).port or 0) as client:
        yield client


@pytest.mark.usefixtures("clear_text")
class TestKeys:
    async def test_keys_of_a_user_are_in_one_slot(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri) as service:
            for session_id in ("a", "{b}", "c}d{e"):
                session = await create(service, session_id, user_id="{u}1", state={"user:x": 1})
                await service.append_event(session, event())
        keys = list(own_server.scan_iter())
        assert len({key_slot(key) for key in keys if b"%7Bu%7D1" in key}) == 1
        assert len(keys) == 3 * 2 + 2 + 1

    async def test_session_is_one_hash_and_one_list(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri, ttl=0) as service:
            session = await create(service, state={"own": 1, "user:u": 2, "app:a": 3})
            await service.append_event(session, event())
        fields = own_server.hgetall("sessions:{app/user}:session:session")
        del fields[b"incarnation"], fields[b"updated_at"]
        assert fields == {
            b"revision": b"1",
            b"ttl": b"0",
            b"expires_at": b"",
            b"indexed_until": b"inf",
            b"state:own": b"1",
        }
        assert own_server.llen("sessions:{app/user}:events:session") == 1
        assert own_server.hgetall("sessions:{app/user}:state") == {b"u": b"2"}
        assert own_server.hgetall("sessions:{app}:state") == {b"a": b"3"}

    async def test_deleted_sessions_leave_no_keys(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri, ttl=0) as service:
            for session_id in ("first", "second"):
                await service.append_event(await create(service, session_id), event())
            for session_id in ("first", "second"):
                await service.delete_session(app_name=APP, user_id=USER, session_id=session_id)
        assert list(own_server.scan_iter()) == []

    async def test_expired_sessions_leave_no_keys(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri, ttl=1) as service:
            for session_id in ("first", "second"):
                session = await create(service, session_id)
                await service.append_event(session, event(user__kept=1))
        await until(lambda: list(own_server.scan_iter()) == [b"sessions:{app/user}:state"])

    async def test_every_key_of_a_session_has_a_ttl(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri, ttl="1h") as service:
            await service.append_event(await create(service), event())
        for key in own_server.scan_iter():
            listed = 2 if key.endswith((b":sessions", b":users")) else 1
            assert 3_500 < own_server.ttl(key) <= listed * 3_600, key

    async def test_session_of_a_newer_version_is_refused_and_unchanged(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri) as service:
            session = await create(service)
            await service.append_event(session, event(user__kept=1))
            own_server.hset("sessions:{app/user}:session:session", "format", 2)
            before = {key: own_server.dump(key) for key in own_server.scan_iter()}
            names: Any = {"app_name": APP, "user_id": USER}
            for call in (
                lambda: get(service),
                lambda: create(service),
                lambda: service.append_event(session, event()),
                lambda: service.delete_session(**names, session_id=session.id),
                lambda: service.list_sessions(**names),
                lambda: service.list_sessions(app_name=APP),
                lambda: service.erase(**names),
            ):
                with pytest.raises(StoreUnavailable, match=r"newer version .* \(format 2, this"):
                    await call()
            assert {key: own_server.dump(key) for key in own_server.scan_iter()} == before
            assert await create(service, "other")


class TestConnections:
    @pytest.mark.parametrize("length", [10, 1_000])
    async def test_append_read_and_list_cost_one_round_trip_each(
        self, own_uri: str, length: int
    ) -> None:
        async with through_proxy(own_uri) as (between, service):
            session = await create(service)
            for number in range(length):
                await service.append_event(session, event(str(number), n=number))
            await get(service)
            await service.list_sessions(app_name=APP, user_id=USER)
            before = between.round_trips
            await service.append_event(session, event("one more", app__n=1, user__n=1))
            assert between.round_trips - before == 1
            await get(service)
            assert between.round_trips - before == 2
            await service.list_sessions(app_name=APP, user_id=USER)
            assert between.round_trips - before == 3

    async def test_cancelled_call_leaves_the_connection_usable(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with through_proxy(own_uri) as (between, service):
            session = await create(service)
            opened = own_server.info("stats")["total_connections_received"]
            between.delay, said = 0.2, event("once")
            call = asyncio.ensure_future(service.append_event(session, said))
            await asyncio.sleep(0.1)
            call.cancel()
            await asyncio.wait([call])
            assert call.cancelled()
            await service.append_event(session, said)  # whether or not it is stored already
            assert texts(await get(service)) == ["once"]
            assert own_server.info("stats")["total_connections_received"] <= opened + 1

    async def test_dropped_connections_are_replaced(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri) as service:
            session = await create(service)
            own_server.client_kill_filter(_type="normal", skipme=True)
            await service.append_event(session, event("after"))
            assert texts(await get(service)) == ["after"]

    async def test_unix_socket_works(self, tmp_path: Path) -> None:
        path = tmp_path / "valkey.sock"
        with server.serve(tmp_path, SCHEME, unixsocket=path):
            async with create_session_service(f"{SCHEME}+unix://{path}?db=1") as service:
                await create(service)
                assert await exists(service)

    async def test_sentinel_names_the_master(
        self, own_uri: str, own_server: "redis.Redis", tmp_path: Path
    ) -> None:
        with server.serve_sentinel(tmp_path, SCHEME, own_uri, "agents") as uri:
            async with create_session_service(uri) as service:
                await create(service)
                assert await exists(service)
            assert "no sentinel knows" in await refusal(uri.replace("agents", "others"))
        assert own_server.exists("sessions:{app/user}:session:session")


class TestErrors:
    """Each error is one sentence with the cause and the remedy."""

    async def test_unreachable_server(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            said = await refusal(f"{SCHEME}://127.0.0.1:{port}/0")
        assert "cannot be reached" in said

    async def test_silent_server(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            said = await refusal(f"{SCHEME}://127.0.0.1:{port}/0?socket_timeout=0.2")
        assert "did not answer in time" in said

    async def test_wrong_credentials(self, own_uri: str, own_server: "redis.Redis") -> None:
        own_server.config_set("requirepass", "right")
        for credentials in ("", ":wrong@", "nobody:wrong@"):
            said = await refusal(own_uri.replace("://", f"://{credentials}"))
            assert "refuses the credentials" in said
            assert "wrong" not in said

    @pytest.mark.parametrize("rules", ["+get", "+@all -@write", "+@all -time"])
    async def test_missing_permission(
        self, own_uri: str, own_server: "redis.Redis", rules: str
    ) -> None:
        own_server.acl_setuser(
            "agent", enabled=True, passwords="+secret", keys="*", commands=rules.split()
        )
        assert "lacks a permission" in await refusal(own_uri.replace("://", "://agent:secret@"))

    async def test_read_only_replica(self, own_uri: str, own_server: "redis.Redis") -> None:
        own_server.slaveof("127.0.0.1", 1)
        assert "it is a replica" in await refusal(own_uri)

    async def test_full_memory_changes_nothing(
        self, own_uri: str, own_server: "redis.Redis"
    ) -> None:
        async with create_session_service(own_uri) as service:
            session = await create(service)
            own_server.config_set("maxmemory", 1)
            with pytest.raises(StoreUnavailable, match="memory is full"):
                await service.append_event(session, event("too much", own=1))
            own_server.config_set("maxmemory", 0)
            assert session.events == []
            assert session.state == (await get(service)).state == {}

    async def test_unknown_database_or_cluster(self, own_uri: str) -> None:
        assert "no database of that number" in await refusal(own_uri.replace("/0", "/4711"))
        assert "it is no cluster" in await refusal(f"{own_uri}?cluster=true")

    async def test_tls_mistakes(self, own_uri: str, tmp_path: Path) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        trusted = f"ssl_ca_certs={tmp_path / 'ca.pem'}&socket_timeout=5"
        plain = own_uri.replace(f"{SCHEME}://", f"{SCHEME}s://")
        assert "speaks TLS" in await refusal(f"{plain}?{trusted}")
        async with tls(own_uri, authority.issue_cert("127.0.0.1")) as uri:
            async with create_session_service(f"{uri}?{trusted}") as service:
                await create(service)
            assert "name its authority" in await refusal(uri)
            assert "speaks TLS" in await refusal(uri.replace(f"{SCHEME}s://", f"{SCHEME}://"))
            with pytest.raises(ConfigurationError, match=r"ssl_ca_certs=.*cannot be read"):
                create_session_service(f"{uri}?ssl_ca_certs={tmp_path / 'missing.pem'}")
        async with tls(own_uri, authority.issue_cert("elsewhere.example")) as uri:
            assert "another host name" in await refusal(f"{uri}?{trusted}")

    @pytest.mark.parametrize(
        "uri",
        [
            *("localhost/name", "localhost:port/0", "one,two/0", "localhost/1?cluster=true"),
            *("h?prefix={x}", "h?max_connections=0", ":se/cret@h/0", "u:12/secret@h", ":se?cret@h"),
        ],
    )
    def test_invalid_uri_is_refused_without_showing_a_password(self, uri: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            create_session_service(f"{SCHEME}://{uri}")
        assert "cret" not in str(caught.value)


@asynccontextmanager
async def through_proxy(uri: str) -> AsyncIterator[tuple[Proxy, PersistentSessionService]]:
    """Return a proxy in front of a server, and a service that connects through it."""
    async with proxy.run(*proxy.address(uri)) as between:
        detour = create_session_service(proxy.through(uri, between.port))
        async with detour as service:
            yield between, service


async def refusal(uri: str) -> str:
    """Return the error of a check of the URI."""
    sentence = ""
    try:
        async with create_session_service(uri) as service:
            await service.check()
            await create(service)
    except StoreUnavailable as error:
        sentence = str(error)
    assert sentence.startswith("Redis at ")
    assert sentence.count("\n") == 0
    return sentence


@asynccontextmanager
async def tls(uri: str, certificate: trustme.LeafCert) -> AsyncIterator[str]:
    """Put TLS in front of a server. The value is the session URI."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*proxy.address(uri))
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
        except OSError:
            pass  # the client refused the certificate
        finally:
            writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as front:
        yield f"{SCHEME}s://127.0.0.1:{front.sockets[0].getsockname()[1]}/0"


async def test_erased_data_is_in_no_key_and_after_a_rewrite_in_no_file(tmp_path: Path) -> None:
    with server.serve(tmp_path, SCHEME, rdbcompression="no") as uri:
        async with create_session_service(uri) as service:
            await plant_and_erase(service)
        with redis.Redis(port=urlsplit(uri).port or 0) as client:
            keys = list(client.scan_iter(count=1000))
            assert [key for key in keys if MARK.encode() in key + (client.dump(key) or b"")] == []
            client.bgrewriteaof()
            await until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
            client.save()
            files = [each for each in tmp_path.rglob("*") if each.is_file()]
            assert [each for each in files if MARK.encode() in each.read_bytes()] == []
