"""PostgreSQL: error messages for servers that refuse, differ or cannot be reached."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    StoreUnavailable,
)

from ..servers import postgres as server
from ..sessions.support import create, event, get
from ..sessions.test_postgres import refusal


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, whose settings and roles the tests may change."""
    with server.serve(tmp_path_factory.mktemp("own"), SCHEME) as uri:
        yield uri


@pytest.fixture
def uri(own_server: str) -> Iterator[str]:
    """An empty database on that server."""
    with server.database(own_server) as uri:
        yield uri


@pytest.mark.parametrize(
    "uri", ["h/db?schema=", "h/db?timeout=0", "h/db?max_connections=0", "h/db?colour=1"]
)
def test_uri_that_cannot_work_is_refused_at_once(uri: str) -> None:
    with pytest.raises(ConfigurationError):
        create_session_service(f"{SCHEME}://{uri}")


@pytest.mark.parametrize(
    "option", ["sslmode=perhaps", "target_session_attrs=nobody", "sslnegotiation=no"]
)
async def test_option_refused_by_the_driver_is_a_configuration_error(option: str) -> None:
    async with create_session_service(f"{SCHEME}://127.0.0.1/db?{option}") as service:
        with pytest.raises(ConfigurationError, match="The session URI cannot be used"):
            await service.check()


async def test_missing_socket(tmp_path: Path) -> None:
    assert "is not there" in await refusal(f"{SCHEME}:///own?host={tmp_path}")


async def test_missing_certificate(uri: str) -> None:
    assert "is not there" in await refusal(f"{uri}?sslmode=verify-full&sslrootcert=/nowhere.pem")


async def test_server_without_tls(uri: str) -> None:
    assert "does not speak TLS" in await refusal(f"{uri}?sslmode=require")


if sys.platform != "win32":

    @pytest.fixture
    def closed_home(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A home folder that this process may not read."""
        create_session_service(uri)  # imports what another user may not be able to read
        home = tmp_path / "home"
        home.mkdir(mode=0)
        monkeypatch.setenv("HOME", str(home))
        user = os.geteuid()
        if user == 0:  # root may read everything
            os.seteuid(65_534)
        yield home
        os.seteuid(user)

    async def test_unreadable_home_is_named(uri: str, closed_home: Path) -> None:
        said = await refusal(uri)
        assert "must not read" in said
        assert str(closed_home) in said
        assert "cannot be reached" not in said


async def test_too_many_connections(uri: str) -> None:
    name = urlsplit(uri).path[1:]
    server.execute(uri, f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    server.execute(uri, "CREATE ROLE visitor LOGIN")
    said = await refusal(uri.replace("://postgres", "://visitor"))
    assert "no connection left" in said


async def test_full_disk_changes_nothing(uri: str) -> None:
    # A trigger raises the error of a full disk.
    raise_it = "BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END"
    async with create_session_service(uri) as service:
        session = await create(service)
        server.execute(
            uri, f"CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $${raise_it}$$"
        )
        server.execute(
            uri,
            "CREATE TRIGGER fill BEFORE INSERT ON sessions.events"
            " FOR EACH ROW EXECUTE FUNCTION fill()",
        )
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await service.append_event(session, event("too much", own=1, user__k=1))
        assert session.events == []
        assert session.state == (await get(service)).state == {}
