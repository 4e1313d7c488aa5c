"""What is particular to PostgreSQL: its tables and what is left in them, its errors, its round trips."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import asyncpg
import pytest
from google.adk.errors import StaleSessionError
from {{ cookiecutter.__package }}.sessions.stores import postgres, postgres_schema

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    StoreUnavailable,
)
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.store import ScopedState, SessionKey

from ..servers import postgres as server
from ..servers import proxy
from ..servers.proxy import Proxy, Weather
from .support import APP, USER, create, event, exists, get, texts

TABLES = ("sessions", "events", "session_state", "user_state", "app_state")

EMPTY = """
    DO $$
    DECLARE name text;
    BEGIN
        FOR name IN
            SELECT nspname FROM pg_namespace
            WHERE nspname !~ '^pg_' AND nspname != 'information_schema'
        LOOP
            EXECUTE format('DROP SCHEMA %I CASCADE', name);
        END LOOP;
        CREATE SCHEMA public;
    END $$
"""


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that is ours: its settings and its roles can be changed."""
    with server.serve(tmp_path_factory.mktemp("own"), SCHEME) as uri:
        server.execute(uri, "CREATE DATABASE own")
        yield uri


@pytest.fixture
def own_uri(own_server: str) -> Iterator[str]:
    """A database of its own on that server, empty and with default settings."""
    uri = own_server.removesuffix("/postgres") + "/own"
    yield uri
    server.execute(own_server, "ALTER DATABASE own RESET ALL")
    server.execute(own_server, "ALTER DATABASE own CONNECTION LIMIT -1")
    server.execute(uri, EMPTY)


@pytest.fixture
async def proxied(own_uri: str) -> AsyncIterator[tuple[Proxy, PersistentSessionService]]:
    """A proxy before that server, and a service that goes through it."""
    port = urlsplit(own_uri).port or 0
    async with proxy.run("127.0.0.1", port) as between:
        uri = f"{own_uri.replace(str(port), str(between.port))}?timeout=2&max_connections=1"
        async with create_session_service(uri) as service:
            yield between, service


async def refusal(uri: str) -> str:
    """Return the sentence that a check of the URI ends with."""
    sentence = ""
    try:
        async with create_session_service(uri) as service:
            await service.check()
    except StoreUnavailable as error:
        sentence = str(error)
    assert sentence.startswith("PostgreSQL at ")
    assert sentence.count("\n") == 0
    return sentence


def rows(uri: str) -> dict[str, int]:
    """Return how many rows each table has, of those that have any."""
    counts = ", ".join(f"(SELECT count(*) FROM sessions.{table})" for table in TABLES)
    [found] = server.execute(uri, f"SELECT {counts}")
    return {table: count for table, count in zip(TABLES, found, strict=True) if count}


class TestTables:
    async def test_deleted_sessions_leave_nothing_behind(self, own_uri: str) -> None:
        async with create_session_service(own_uri) as service:
            session = await create(service, state={"own": 1})
            await service.append_event(session, event())
            assert rows(own_uri) == {"sessions": 1, "events": 1, "session_state": 1}
            await service.delete_session(app_name=APP, user_id=USER, session_id=session.id)
        assert rows(own_uri) == {}

    async def test_expired_sessions_leave_nothing_behind(self, own_uri: str) -> None:
        async with create_session_service(own_uri) as service:
            for name, now, ttl in (("old", 0.0, 60), ("recent", 1_000.0, 60), ("ever", 0.0, 0)):
                await service.store.create(
                    SessionKey(APP, USER, name),
                    incarnation="incarnation",
                    state=ScopedState(user={"kept": b"1"}, session={"lost": b"1"}),
                    now=now,
                    ttl=ttl,
                )
        async with create_session_service(own_uri) as service:
            await service.store.create(
                SessionKey(APP, USER, "new"),
                incarnation="incarnation",
                state=ScopedState(),
                now=1_100.0,
                ttl=0,
            )
        assert rows(own_uri) == {"sessions": 3, "session_state": 2, "user_state": 1}

    async def test_what_a_killed_process_left_of_a_deletion_is_removed(self, own_uri: str) -> None:
        async with create_session_service(own_uri) as service:
            await service.append_event(await create(service, "half"), event())
            statements = service.store._statements  # type: ignore[attr-defined]
            server.execute(own_uri, statements.bury, b"app", b"user", b"half")
            assert not await exists(service, "half")
            await create(service, "half")
            assert not (await get(service, "half")).events
        assert rows(own_uri) == {"sessions": 1}

    async def test_ids_and_keys_have_any_length(self, own_uri: str) -> None:
        name = "".join(map(chr, Random(1).sample(range(0x10000, 0x40000), 10_000)))
        async with create_session_service(own_uri) as service:
            state = {name: 1, f"user:{name}": 2, f"app:{name}": 3}
            await service.create_session(app_name=name, user_id=name, session_id=name, state=state)
            found = await service.list_sessions(app_name=name)
            assert [(item.id, item.user_id, item.state) for item in found.sessions] == [
                (name, name, state)
            ]

    async def test_writers_of_the_same_keys_do_not_block_each_other(self, own_uri: str) -> None:
        keys = [f"{scope}k{number}" for scope in ("user:", "app:") for number in range(8)]

        async def write(service: PersistentSessionService, seed: int) -> None:
            shuffle = Random(seed)
            session = await create(service, str(seed), state={"user:k0": 0, "app:k0": 0})
            for _ in range(20):
                shuffle.shuffle(keys)
                said = event()
                said.actions.state_delta = dict.fromkeys(keys, seed)
                await service.append_event(session, said)

        async with create_session_service(own_uri) as service:
            await asyncio.gather(*(write(service, seed) for seed in range(8)))
        [(deadlocks,)] = server.execute(
            own_uri, "SELECT deadlocks FROM pg_stat_database WHERE datname = 'own'"
        )
        assert deadlocks == 0

    async def test_a_stricter_isolation_changes_nothing(self, own_uri: str) -> None:
        server.execute(
            own_uri, "ALTER DATABASE own SET default_transaction_isolation = 'serializable'"
        )
        async with create_session_service(own_uri) as service:
            await create(service)
            copies = [await get(service) for _ in range(4)]
            done = await asyncio.gather(
                *(service.append_event(copy, event(app__k=1)) for copy in copies),
                return_exceptions=True,
            )
            assert sum(isinstance(outcome, StaleSessionError) for outcome in done) == 3
            assert len((await get(service)).events) == 1


class TestSchema:
    async def test_several_that_start_together_make_it_once(self, own_uri: str) -> None:
        services = [create_session_service(own_uri) for _ in range(8)]
        try:
            await asyncio.gather(*(service.check() for service in services))
        finally:
            for service in services:
                await service.close()
        assert server.execute(own_uri, "SELECT version FROM sessions.schema_version") == [(1,)]

    async def test_any_name_will_do(self, own_uri: str) -> None:
        async with create_session_service(own_uri, schema='my "own"; %s') as service:
            await create(service)
            assert await exists(service)

    async def test_an_older_one_is_migrated(
        self, own_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with create_session_service(own_uri) as service:
            await create(service)
        step = "ALTER TABLE {schema}.sessions ADD COLUMN label text"
        monkeypatch.setattr(postgres_schema, "MIGRATIONS", (*postgres_schema.MIGRATIONS, step))
        services = [create_session_service(own_uri) for _ in range(3)]
        try:
            assert all(await asyncio.gather(*map(exists, services)))
        finally:
            for service in services:
                await service.close()
        assert server.execute(own_uri, "SELECT label FROM sessions.sessions") == [(None,)]

    async def test_a_newer_one_is_refused(self, own_uri: str) -> None:
        async with create_session_service(own_uri) as service:
            await service.check()
            server.execute(own_uri, "UPDATE sessions.schema_version SET version = 99")
        async with create_session_service(own_uri) as service:
            with pytest.raises(ConfigurationError, match="newer version"):
                await service.check()

    async def test_one_of_another_program_is_refused(self, own_uri: str) -> None:
        server.execute(own_uri, "CREATE TABLE public.sessions (id text)")
        async with create_session_service(own_uri, schema="public") as service:
            with pytest.raises(ConfigurationError, match="tables of another program"):
                await service.check()

    async def test_one_that_was_dropped_is_made_again(self, own_uri: str) -> None:
        async with create_session_service(own_uri) as service:
            await create(service)
            server.execute(own_uri, "DROP SCHEMA sessions CASCADE")
            with pytest.raises(StoreUnavailable, match="tables of sessions are gone"):
                await get(service)
            assert not await exists(service)
            await create(service)


class TestRoundTrips:
    @pytest.mark.parametrize("length", [10, 1_000])
    async def test_an_append_and_a_read_cost_one(
        self,
        proxied: tuple[Proxy, PersistentSessionService],
        length: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        between, service = proxied
        monkeypatch.setattr(postgres, "PURGE_EVERY", 1_000.0)
        session = await create(service)
        for number in range(length):
            await service.append_event(session, event(str(number), n=number, user__n=number))
        await get(service)
        await service.list_sessions(app_name=APP, user_id=USER)
        before = between.round_trips
        await service.append_event(session, event("one more", n=1, user__n=1))
        assert between.round_trips - before == 1
        await get(service)
        assert between.round_trips - before == 2
        await service.list_sessions(app_name=APP, user_id=USER)
        assert between.round_trips - before == 3

    async def test_it_stays_one_without_prepared_statements(
        self, own_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres, "PURGE_EVERY", 1_000.0)
        port = urlsplit(own_uri).port or 0
        async with proxy.run("127.0.0.1", port) as between:
            uri = f"{own_uri.replace(str(port), str(between.port))}?max_connections=1"
            async with create_session_service(uri, statement_cache_size=0) as service:
                session = await create(service)
                await service.append_event(session, event("first"))
                await get(service)
                before = between.round_trips
                await service.append_event(session, event("second"))
                await get(service)
                assert between.round_trips - before == 2


class TestBadWeather:
    async def test_a_lost_reply_does_not_double_an_event(
        self, proxied: tuple[Proxy, PersistentSessionService]
    ) -> None:
        between, service = proxied
        session = await create(service)
        for weather in (Weather.LOSE_REPLY, Weather.CUT_REPLY):
            between.weather = weather
            said = event(weather.name)
            with pytest.raises(StoreUnavailable):
                await service.append_event(session, said)
            between.weather = Weather.FINE
            await service.append_event(session, said)
        assert texts(session) == texts(await get(service)) == ["LOSE_REPLY", "CUT_REPLY"]

    async def test_one_lost_reply_is_not_even_noticed(
        self, proxied: tuple[Proxy, PersistentSessionService]
    ) -> None:
        between, service = proxied
        session = await create(service)
        await service.append_event(session, event("first"))

        between.strike(Weather.LOSE_REPLY)
        await service.append_event(session, event("second"))
        assert texts(session) == texts(await get(service)) == ["first", "second"]

    async def test_a_server_that_never_answers_is_given_up(
        self, proxied: tuple[Proxy, PersistentSessionService]
    ) -> None:
        between, service = proxied
        await create(service)
        between.weather = Weather.SILENCE
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await get(service)
        between.weather = Weather.FINE
        assert await exists(service)

    async def test_a_server_that_comes_back_is_used_again(
        self, proxied: tuple[Proxy, PersistentSessionService]
    ) -> None:
        between, service = proxied
        await create(service)
        between.weather = Weather.REFUSE
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await get(service)
        between.weather = Weather.FINE
        assert await exists(service)

    async def test_dropped_connections_are_replaced(self, own_uri: str) -> None:
        async with create_session_service(own_uri) as service:
            sessions = [await create(service, str(number)) for number in range(5)]
            await asyncio.gather(*(get(service, session.id) for session in sessions))
            server.execute(
                own_uri,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = 'own' AND pid != pg_backend_pid()",
            )
            await asyncio.gather(*(service.append_event(item, event()) for item in sessions))

    async def test_connections_may_be_idle_for_longer_than_the_server_likes(
        self, own_uri: str
    ) -> None:
        server.execute(own_uri, "ALTER DATABASE own SET idle_session_timeout = 20")
        async with create_session_service(own_uri) as service:
            session = await create(service)
            for _ in range(3):
                await asyncio.sleep(0.05)
                await service.append_event(session, event())

    async def test_what_waits_in_vain_does_not_go_on_waiting_in_the_server(
        self, own_uri: str
    ) -> None:
        async with create_session_service(own_uri, timeout=1) as service:
            session = await create(service)
            holder = await asyncpg.connect(server.driver_uri(own_uri))
            async with holder.transaction():
                await holder.execute("UPDATE sessions.sessions SET ttl = ttl")
                with pytest.raises(StoreUnavailable, match="did not answer in time"):
                    await service.append_event(session, event("too late"))
                waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                for _ in range(600):
                    if not (left := await holder.fetch(waiting)):
                        break
                    await asyncio.sleep(0.05)
                assert left == []
            await holder.close()
            await service.append_event(session, event("in time"))
            assert texts(await get(service)) == ["in time"]

    async def test_of_several_hosts_the_one_that_takes_writes_is_used(self, own_uri: str) -> None:
        host = urlsplit(own_uri).netloc.rpartition("@")[2]
        uri = own_uri.replace(host, f"127.0.0.1:1,{host}")
        async with create_session_service(uri) as service:
            await create(service)
        server.execute(own_uri, "ALTER DATABASE own SET default_transaction_read_only = on")
        refused = await refusal(own_uri.replace(host, f"{host},{host}"))
        assert "none of the hosts takes writes" in refused

    async def test_a_proxy_may_forget_prepared_statements(self, own_uri: str) -> None:
        async with create_session_service(own_uri) as service:
            session = await create(service)
            forget = "BEGIN DEALLOCATE ALL; RETURN NEW; END"
            function = "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql"
            server.execute(own_uri, f"{function} AS $${forget}$$")
            server.execute(
                own_uri,
                "CREATE TRIGGER forget BEFORE INSERT ON sessions.events"
                " FOR EACH ROW EXECUTE FUNCTION forget()",
            )
            for number in range(5):
                await service.append_event(session, event(str(number)))
            assert texts(await get(service)) == list("01234")


async def _until_it_answers(service: PersistentSessionService) -> None:
    for _ in range(600):
        try:
            await service.check()
            return
        except StoreUnavailable:
            await asyncio.sleep(0.1)
    await service.check()


def test_a_service_that_nobody_closed_leaves_no_connection(own_uri: str) -> None:
    service = create_session_service(own_uri)
    asyncio.run(create(service))
    assert asyncio.run(exists(service))
    left = "SELECT pid FROM pg_stat_activity WHERE datname = 'own' AND pid != pg_backend_pid()"
    assert server.execute(own_uri, left) == []


class TestErrors:
    async def test_nobody_listens(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            said = await refusal(f"{SCHEME}://127.0.0.1:{port}/own")
        assert "cannot be reached" in said

    async def test_somebody_else_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            said = await refusal(f"{SCHEME}://127.0.0.1:{port}/own?timeout=0.2")
        assert "did not answer in time" in said

    async def test_no_socket(self, tmp_path: Path) -> None:
        assert "is not there" in await refusal(f"{SCHEME}:///own?host={tmp_path}")

    async def test_wrong_credentials(self, tmp_path: Path) -> None:
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

    async def test_wrong_database(self, own_uri: str) -> None:
        assert "no such database" in await refusal(own_uri.replace("/own", "/nowhere"))

    async def test_missing_permission(self, own_uri: str) -> None:
        server.execute(own_uri, "DROP ROLE IF EXISTS reader")
        server.execute(own_uri, "CREATE ROLE reader LOGIN")
        as_reader = own_uri.replace("://postgres", "://reader")
        assert "lacks a permission (permission denied for database" in await refusal(as_reader)
        async with create_session_service(own_uri) as service:
            await service.check()
        assert "lacks a permission (permission denied for schema" in await refusal(as_reader)
        server.execute(own_uri, "GRANT USAGE ON SCHEMA sessions TO reader")
        allow = "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA sessions TO reader"
        server.execute(own_uri, allow)
        assert "lacks a permission (permission denied for table" in await refusal(as_reader)
        server.execute(own_uri, "GRANT DELETE ON ALL TABLES IN SCHEMA sessions TO reader")
        async with create_session_service(as_reader) as service:
            await service.check()
            await service.append_event(await create(service, state={"user:a": 1}), event(app__a=1))
        server.execute(own_uri, "DROP OWNED BY reader")

    async def test_a_schema_made_for_the_agent_is_enough(self, own_uri: str) -> None:
        server.execute(own_uri, "DROP ROLE IF EXISTS agent")
        server.execute(own_uri, "CREATE ROLE agent LOGIN")
        server.execute(own_uri, "CREATE SCHEMA sessions AUTHORIZATION agent")
        async with create_session_service(own_uri.replace("://postgres", "://agent")) as service:
            await service.check()
        server.execute(own_uri, "DROP OWNED BY agent")

    async def test_no_connection_left(self, own_uri: str) -> None:
        server.execute(own_uri, "ALTER DATABASE own CONNECTION LIMIT 0")
        server.execute(own_uri, "DROP ROLE IF EXISTS agent")
        server.execute(own_uri, "CREATE ROLE agent LOGIN")
        assert "no connection left" in await refusal(own_uri.replace("://postgres", "://agent"))

    async def test_a_standby(self, own_uri: str) -> None:
        async with create_session_service(own_uri) as service:
            await service.check()
        server.execute(own_uri, "ALTER DATABASE own SET default_transaction_read_only = on")
        assert "it takes no writes" in await refusal(own_uri)

    async def test_a_full_disk_changes_nothing(self, own_uri: str) -> None:
        # What PostgreSQL raises then, raised by a trigger.
        raise_it = "BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END"
        async with create_session_service(own_uri) as service:
            session = await create(service)
            server.execute(
                own_uri,
                f"CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $${raise_it}$$",
            )
            server.execute(
                own_uri,
                "CREATE TRIGGER fill BEFORE INSERT ON sessions.events"
                " FOR EACH ROW EXECUTE FUNCTION fill()",
            )
            with pytest.raises(StoreUnavailable, match="disk is full"):
                await service.append_event(session, event("too much", own=1, user__k=1))
            assert session.events == []
            assert session.state == (await get(service)).state == {}

    async def test_no_tls_where_tls_is_asked_for(self, own_uri: str) -> None:
        assert "does not speak TLS" in await refusal(f"{own_uri}?sslmode=require")

    async def test_a_certificate_that_is_not_there(self, own_uri: str) -> None:
        uri = f"{own_uri}?sslmode=verify-full&sslrootcert=/nowhere.pem"
        assert "is not there" in await refusal(uri)

    async def test_an_option_that_the_driver_refuses(self, own_uri: str) -> None:
        async with create_session_service(f"{own_uri}?sslmode=perhaps") as service:
            with pytest.raises(ConfigurationError, match="sslmode"):
                await service.check()

    async def test_an_event_that_is_too_large(
        self, own_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres, "LARGEST", 1_000)
        async with create_session_service(own_uri) as service:
            session = await create(service)
            with pytest.raises(ValueError, match="too large for PostgreSQL"):
                await service.append_event(session, event("x" * 2_000))
            assert session.events == (await get(service)).events == []

    @pytest.mark.parametrize(
        "uri",
        ["h:port/db", "h/db?schema=", "h/db?timeout=0", "h/db?max_connections=0", "h/db?colour=1"],
    )
    def test_uris_that_cannot_work_are_refused_at_once(self, uri: str) -> None:
        with pytest.raises(ConfigurationError):
            create_session_service(f"{SCHEME}://{uri}")


if shutil.which("pgbouncer"):  # Debian has it, PyPI has not

    async def test_pgbouncer_may_give_every_transaction_another_connection(
        own_uri: str, tmp_path: Path
    ) -> None:
        parts = urlsplit(own_uri)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = tmp_path / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\nown = host=127.0.0.1 port={parts.port} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
        )

        async def write(service: PersistentSessionService, number: int) -> None:
            session = await create(service, str(number))
            for count in range(10):
                await service.append_event(session, event(n=count, user__n=count))
                assert len((await get(service, str(number))).events) == count + 1

        command = [*server.unprivileged(), "pgbouncer", "-q", str(settings)]
        bouncer = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
        try:
            async with create_session_service(
                own_uri.replace(str(parts.port), str(port)), max_connections=8
            ) as service:
                await _until_it_answers(service)
                await asyncio.gather(*(write(service, number) for number in range(8)))
        finally:
            bouncer.terminate()
            await bouncer.wait()
