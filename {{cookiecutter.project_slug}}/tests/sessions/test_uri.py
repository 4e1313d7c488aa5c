"""Session URIs: options, precedence, and a one-sentence error for each mistake."""

from pathlib import Path

import pytest
from google.adk.cli.service_registry import get_service_registry

from {{ cookiecutter.__package }}.sessions import (
    config,
    create_session_service,
    environment,
    register,
)
from {{ cookiecutter.__package }}.sessions.errors import (
    ConfigurationError,
    SessionStoreError,
)
from {{ cookiecutter.__package }}.sessions.factory import session_uri
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.ttl import parse_ttl

from .support import create, exists, with_options


class TestPrecedence:
    """The URI comes from the argument, the environment, `.env` or the project's default."""

    def test_argument_comes_first(self, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SESSION_SERVICE_URI", "nonsense://")
        assert create_session_service(uri).description

    def test_environment_comes_second(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SESSION_SERVICE_URI", "nonsense://host")
        with pytest.raises(ConfigurationError, match="'nonsense'"):
            create_session_service()

    def test_dotenv_file_comes_third(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("SESSION_SERVICE_URI", "")  # blank counts as not set
        monkeypatch.chdir(tmp_path)
        Path(".env").write_text("SESSION_SERVICE_URI=filed://host\n", encoding="utf-8")
        with pytest.raises(ConfigurationError, match="'filed'"):
            create_session_service()

    @pytest.mark.parametrize("text", ["", "SESSION_SERVICE_URI=\n"])
    def test_default_comes_last(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
    ) -> None:
        monkeypatch.setenv("SESSION_SERVICE_URI", "")
        monkeypatch.setattr(environment, "PROJECT", tmp_path)
        monkeypatch.chdir(tmp_path)
        Path(".env").write_text(text, encoding="utf-8")
        assert session_uri() == config.DEFAULT_URI

    @pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
    def test_dotenv_file_must_be_utf8(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str
    ) -> None:
        monkeypatch.setenv("SESSION_SERVICE_URI", "")
        monkeypatch.chdir(tmp_path)
        Path(".env").write_text("NAME=Zoë\n", encoding=encoding)
        with pytest.raises(ConfigurationError, match=r"\.env is not a UTF-8 file"):
            create_session_service()


class TestOptions:
    def test_ttl_may_be_in_the_uri_or_an_argument(self, uri: str) -> None:
        assert create_session_service(uri).ttl == parse_ttl(config.DEFAULT_TTL)
        assert create_session_service(with_options(uri, "ttl=90s")).ttl == 90
        assert create_session_service(with_options(uri, "ttl=90s"), ttl="2m").ttl == 120
        assert create_session_service(uri, ttl=0).ttl == 0

    def test_unknown_option_is_refused_with_a_list_of_known_ones(self, uri: str) -> None:
        with pytest.raises(ConfigurationError, match=r"colour; the known ones are .*ttl"):
            create_session_service(uri, colour="blue")

    @pytest.mark.parametrize("option", ["ttl=soon", "ttl=", "cache_mb=-1", "cache_mb=much"])
    def test_invalid_value_is_refused_with_its_option(self, uri: str, option: str) -> None:
        with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
            create_session_service(with_options(uri, option))

    def test_repeated_option_is_refused(self, uri: str) -> None:
        with pytest.raises(ConfigurationError, match="twice"):
            create_session_service(with_options(uri, "ttl=1h&ttl=2h"))


def said_of(uri: str) -> str:
    """Return everything that is shown about a URI: by the service and its store, or in the error."""
    try:
        service = create_session_service(uri)
    except SessionStoreError as error:
        return str(error)
    return f"{service} {service.store.location} {vars(service.store.innermost)}"


class TestErrors:
    @pytest.mark.parametrize("text", ["no-uri", "other://host/db", "://host", "x" * 5_000])
    def test_unknown_scheme_is_refused_with_the_right_one(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=f"{config.SCHEME}://"):
            create_session_service(text)

    @pytest.mark.parametrize(
        "end", ["@[bad", "@host:port:port/x?y", "@host/db?colour=blue", "@host#x", "\u2100@host"]
    )
    def test_no_message_shows_a_password(self, end: str) -> None:
        for scheme in (*config.SCHEMES, "other"):
            assert "hunter2" not in said_of(f"{scheme}://user:hunter2{end}")

    @pytest.mark.parametrize("letter", "/?#@:%[")
    @pytest.mark.parametrize("password", ["hun{}ter2", "{}hunter2", "12{}hunter2", "hunter2{}34"])
    def test_no_message_shows_an_unescaped_password(self, letter: str, password: str) -> None:
        for scheme in config.SCHEMES:
            said = said_of(f"{scheme}://user:{password.format(letter)}@host:1/db")
            assert "hun" not in said
            assert "ter2" not in said

    @pytest.mark.parametrize(
        "place",
        [
            ":{}",
            ":/{}",
            ":///{}",
            ":///me:hun%2Fter2@host",
            "://:x@/{}",
            "://{}/db?ttl=24h",
            "://me:1?ttl={}",
            "://me:1?hun&x={}",
        ],
    )
    def test_no_message_shows_credentials_in_the_wrong_place(self, place: str) -> None:
        for scheme in config.SCHEMES:
            said = said_of(f"{scheme}{place.format('me:hunter2@host')}")
            assert "hun" not in said

    @pytest.mark.parametrize("option", ["ttl", "turns", "cache_mb"])
    def test_no_message_shows_a_password_in_an_option(self, uri: str, option: str) -> None:
        with pytest.raises(ConfigurationError, match=option) as raised:
            create_session_service(uri, **{option: "other://me:{}@host".format("hunter2")})
        assert "hunter2" not in str(raised.value)

    @pytest.mark.parametrize("text", [":", ":db", ":/db", "://\ud83d", "://host/\ud83d"])
    def test_text_that_is_not_a_uri_is_refused(self, text: str) -> None:
        for scheme in config.SCHEMES:
            with pytest.raises(ConfigurationError, match=r"^The session URI"):
                create_session_service(f"{scheme}{text}")


class TestRegister:
    async def test_adk_opens_session_uris(
        self, uri: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        register()
        register()
        service = get_service_registry().create_session_service(uri, agents_dir="agents")
        assert isinstance(service, PersistentSessionService)
        await create(service)
        assert await exists(service)
        await service.close()
        announced = capfd.readouterr().err
        assert announced == f"Sessions: {service}\n"
        assert config.BACKEND_TITLE in announced

    async def test_uri_may_be_a_keyword_argument(self, uri: str) -> None:
        service = create_session_service(uri=uri, agents_dir="agents")
        await service.check()
        await service.close()

    @pytest.mark.parametrize(
        ("missing", "raised"),
        [("driver", ConfigurationError), (f"{config.__name__}.x", ModuleNotFoundError)],
    )
    def test_missing_driver_is_a_configuration_error(
        self, uri: str, monkeypatch: pytest.MonkeyPatch, missing: str, raised: type[Exception]
    ) -> None:
        def open_store(_: object) -> None:
            raise ModuleNotFoundError(name=missing)

        monkeypatch.setattr(config, "open_store", open_store)
        with pytest.raises(raised):
            create_session_service(uri)


class TestTTL:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("90s", 90),
            ("30m", 1800),
            ("24h", 86400),
            ("7d", 604800),
            ("15", 15),
            ("0", 0),
            (15, 15),
        ],
    )
    def test_valid_ttl_is_parsed(self, text: str | int, seconds: int) -> None:
        assert parse_ttl(text) == seconds

    @pytest.mark.parametrize("text", ["", "soon", "-1", "1.5h", "1 h", "1w", "h", "٣s", True])
    def test_invalid_ttl_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="24h"):
            parse_ttl(text)
