"""What is special about PostgreSQL: tables, permissions, connections, errors, expiry and PgBouncer."""

import asyncio
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    StoreUnavailable,
)
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.store import ScopedState, SessionKey

from ..servers import postgres as server
from ..servers.starting import free_port, run
from .support import APP, MARK, USER, create, event, exists, get, plant_and_erase, texts


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, whose settings and roles the tests may change."""
    with server.serve(tmp_path_factory.mktemp("own"), SCHEME) as uri:
        server.execute(uri, "CREATE ROLE agent LOGIN")
        yield uri


@pytest.fixture
def uri(own_server: str) -> Iterator[str]:
    """An empty database on that server."""
    with server.database(own_server) as uri:
        yield uri


def as_agent(uri: str) -> str:
    """Return the URI with a user without privileges."""
    return uri.replace("://postgres", "://agent")


async def refusal(uri: str) -> str:
    """Return the error of a check of the URI."""
    sentence = ""
    try:
        async with create_session_service(uri) as service:
            await service.check()
    except StoreUnavailable as error:
        sentence = str(error)
    assert sentence.startswith("PostgreSQL at ")
    assert sentence.count("\n") == 0
    return sentence


class TestTables:
    async def test_concurrent_first_use_creates_tables_once(self, uri: str) -> None:
        services = [create_session_service(uri) for _ in range(8)]
        try:
            await asyncio.gather(*(service.check() for service in services))
        finally:
            for service in services:
                await service.close()
        assert server.execute(uri, "SELECT version FROM sessions.schema_version") == [(1,)]

    async def test_schema_option_isolates_agents(self, uri: str) -> None:
        async with (
            create_session_service(uri, schema='my "own"; %s') as service,
            create_session_service(uri) as other,
        ):
            await create(service)
            assert await exists(service)
            assert not await exists(other)

    async def test_newer_schema_is_refused_and_unchanged(self, uri: str) -> None:
        async with create_session_service(uri) as service:
            await create(service)
            server.execute(uri, "UPDATE sessions.schema_version SET version = 99")
        async with create_session_service(uri) as service:
            with pytest.raises(ConfigurationError, match=r"'sessions' .* newer version .* 99"):
                await service.check()
        assert server.execute(uri, "SELECT version FROM sessions.schema_version") == [(99,)]
        assert server.execute(uri, "SELECT count(*) FROM sessions.sessions") == [(1,)]

    async def test_tables_of_another_program_are_refused_and_unchanged(self, uri: str) -> None:
        server.execute(uri, "CREATE TABLE public.sessions (id text)")
        async with create_session_service(uri, schema="public") as service:
            with pytest.raises(ConfigurationError, match="tables of another program"):
                await service.check()
        tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"
        assert server.execute(uri, tables) == [("sessions",)]

    async def test_dropped_tables_are_created_again(self, uri: str) -> None:
        async with create_session_service(uri) as service:
            await create(service)
            server.execute(uri, "DROP SCHEMA sessions CASCADE")
            with pytest.raises(StoreUnavailable, match="tables of sessions are gone"):
                await get(service)
            assert not await exists(service)
            await create(service)


class TestPermissions:
    async def test_documented_permissions_are_sufficient(self, uri: str) -> None:
        assert "lacks a permission (permission denied for database" in await refusal(as_agent(uri))
        async with create_session_service(uri) as service:
            await service.check()
        assert "lacks a permission (permission denied for schema" in await refusal(as_agent(uri))
        server.execute(uri, "GRANT USAGE ON SCHEMA sessions TO agent")
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            assert "lacks a permission (permission denied for" in await refusal(as_agent(uri))
            server.execute(uri, f"GRANT {right} ON ALL TABLES IN SCHEMA sessions TO agent")
        async with create_session_service(as_agent(uri)) as service:
            await service.check()
            session = await create(service, state={"user:a": 1})
            await service.append_event(session, event(app__a=1, own=1))
            await service.delete_session(app_name=APP, user_id=USER, session_id=session.id)

    async def test_owning_the_schema_is_sufficient(self, uri: str) -> None:
        server.execute(uri, "CREATE SCHEMA sessions AUTHORIZATION agent")
        async with create_session_service(as_agent(uri)) as service:
            await create(service)


class TestConnections:
    async def test_dropped_connections_are_replaced(self, uri: str) -> None:
        async with create_session_service(uri) as service:
            sessions = [await create(service, str(number)) for number in range(5)]
            await asyncio.gather(*(get(service, session.id) for session in sessions))
            server.execute(
                uri,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid != pg_backend_pid()",
            )
            await asyncio.gather(*(service.append_event(item, event()) for item in sessions))

    async def test_writable_host_is_used(self, uri: str) -> None:
        host = urlsplit(uri).netloc.rpartition("@")[2]
        async with create_session_service(uri.replace(host, f"127.0.0.1:1,{host}")) as service:
            await create(service)
        name = urlsplit(uri).path[1:]
        server.execute(uri, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        assert "none of the hosts takes writes" in await refusal(
            uri.replace(host, f"{host},{host}")
        )
        assert "it takes no writes" in await refusal(uri)

    def test_unclosed_service_leaves_no_connection(self, uri: str) -> None:
        service = create_session_service(uri)
        asyncio.run(create(service))
        assert asyncio.run(exists(service))
        left = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        assert server.execute(uri, f"{left} AND pid != pg_backend_pid()") == []


class TestErrors:
    async def test_unreachable_server(self) -> None:
        assert "cannot be reached" in await refusal(f"{SCHEME}://127.0.0.1:{free_port()}/own")

    async def test_silent_server(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            said = await refusal(f"{SCHEME}://127.0.0.1:{port}/own?timeout=0.2")
        assert "did not answer in time" in said

    async def test_unknown_database(self, uri: str) -> None:
        assert "no such database" in await refusal(f"{uri}_not")

    async def test_wrong_password_is_not_shown(self, tmp_path: Path) -> None:
        access = tmp_path / "access.conf"
        access.write_text("host all postgres all trust\nhost all agent all scram-sha-256\n")
        with server.serve(tmp_path, SCHEME, hba_file=access) as uri:
            server.execute(uri, "CREATE ROLE agent LOGIN PASSWORD 'right'")
            for credentials in ("agent:wrong", "agent"):
                said = await refusal(uri.replace("://postgres", f"://{credentials}"))
                assert "refuses the credentials" in said
                assert "wrong" not in said
            said = await refusal(uri.replace("://postgres", "://nobody:wrong"))
            assert "does not let this user in" in said
            assert "wrong" not in said


class TestExpiry:
    async def create_at(self, service: PersistentSessionService, name: str, now: float) -> None:
        """Create a session that lives for a minute."""
        state = ScopedState(user={"kept": b"1"}, session={"lost": b"1"})
        key = SessionKey(APP, USER, name)
        await service.store.create(key, incarnation="1", state=state, now=now, ttl=60)

    @pytest.mark.usefixtures("clear_text")
    async def test_expired_sessions_are_purged_after_some_minutes(self, uri: str) -> None:
        now = time.time()
        async with create_session_service(uri) as service:
            await service.check()
            for name, age in (("old", 3_600), ("recent", 100), ("new", 0)):
                await self.create_at(service, name, now - age)
        async with create_session_service(uri) as service:
            await create(service, "cleans up")
        names = "SELECT convert_from(session_id, 'UTF8') FROM sessions.sessions ORDER BY 1"
        assert server.execute(uri, names) == [("cleans up",), ("new",), ("recent",)]
        assert server.execute(uri, "SELECT count(*) FROM sessions.session_state") == [(2,)]
        assert server.execute(uri, "SELECT count(*) FROM sessions.user_state") == [(1,)]

    async def test_fast_clock_purges_no_live_session(self, uri: str) -> None:
        now = time.time()
        async with create_session_service(uri) as service:
            await self.create_at(service, "alive", now)
        async with create_session_service(uri) as fast:
            await self.create_at(fast, "from the future", now + 86_400)
        async with create_session_service(uri) as service:
            assert await exists(service, "alive")


if shutil.which("pgbouncer"):  # Debian has it, PyPI has not

    async def test_pgbouncer_transaction_pooling_works(uri: str, tmp_path: Path) -> None:
        parts, port = urlsplit(uri), free_port()
        settings = tmp_path / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n{parts.path[1:]} = host=127.0.0.1 port={parts.port} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
        )

        async def write(service: PersistentSessionService, number: int) -> None:
            session = await create(service, str(number))
            for count in range(10):
                await service.append_event(session, event(str(count), user__n=count))
            assert texts(await get(service, str(number))) == list("0123456789")

        address = uri.replace(str(parts.port), str(port))
        command = [*server.unprivileged(), "pgbouncer", "-q", str(settings)]
        failures = (OSError, asyncpg.PostgresError)
        log = tmp_path / "pgbouncer.log"
        with run(command, lambda: server.execute(address, "SELECT 1"), failures, log):
            async with create_session_service(address, max_connections=8) as service:
                await asyncio.gather(*(write(service, number) for number in range(8)))


async def test_erased_data_is_in_no_row(uri: str) -> None:
    async with create_session_service(uri) as service:
        await plant_and_erase(service)
    tables = server.execute(uri, "SELECT tablename FROM pg_tables WHERE schemaname = 'sessions'")
    for (table,) in tables:
        rows = server.execute(uri, f"SELECT row::text FROM sessions.{table} AS row")
        assert [row for (row,) in rows if MARK.encode().hex() in row or MARK in row] == []
