"""Session URIs: what is accepted, and what each mistake is answered with."""

from contextlib import suppress

import pytest
from google.adk.cli.service_registry import get_service_registry
from hypothesis import given
from hypothesis import strategies as st

from {{ cookiecutter.__package }}.sessions import (
    config,
    create_session_service,
    register,
)
from {{ cookiecutter.__package }}.sessions.errors import ConfigurationError
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.ttl import MAX_TTL, format_ttl, parse_ttl
from {{ cookiecutter.__package }}.sessions.uri import parse_uri

from .support import create, exists


class TestChoosing:
    """Which URI counts: the argument, the environment, `.env`, the project's default."""

    def test_an_argument_wins(self, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SESSION_SERVICE_URI", "nonsense://")
        assert create_session_service(uri).description

    def test_the_environment_comes_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SESSION_SERVICE_URI", "nonsense://host")
        with pytest.raises(ConfigurationError, match="'nonsense'"):
            create_session_service()

    def test_then_the_file_env(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        monkeypatch.delenv("SESSION_SERVICE_URI", raising=False)
        monkeypatch.chdir(tmp_path_factory.mktemp("project"))
        with open(".env", "w", encoding="utf-8") as file:
            file.write("SESSION_SERVICE_URI=filed://host\n")
        with pytest.raises(ConfigurationError, match="'filed'"):
            create_session_service()


class TestOptions:
    def test_the_time_to_live_may_be_in_the_uri_or_an_argument(self, uri: str) -> None:
        joint = "&" if "?" in uri else "?"
        assert create_session_service(uri).ttl == parse_ttl(config.DEFAULT_TTL)
        assert create_session_service(f"{uri}{joint}ttl=90s").ttl == 90
        assert create_session_service(f"{uri}{joint}ttl=90s", ttl="2m").ttl == 120
        assert create_session_service(uri, ttl=0).ttl == 0

    def test_an_unknown_option_is_an_error_that_lists_the_known(self, uri: str) -> None:
        with pytest.raises(ConfigurationError, match=r"colour; the known ones are .*ttl"):
            create_session_service(uri, colour="blue")

    @pytest.mark.parametrize("option", ["ttl=soon", "ttl=", "cache_mb=-1", "cache_mb=much"])
    def test_a_bad_value_is_an_error_that_names_the_option(self, uri: str, option: str) -> None:
        joint = "&" if "?" in uri else "?"
        with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
            create_session_service(f"{uri}{joint}{option}")

    def test_an_option_given_twice_is_an_error(self, uri: str) -> None:
        joint = "&" if "?" in uri else "?"
        with pytest.raises(ConfigurationError, match="twice"):
            create_session_service(f"{uri}{joint}ttl=1h&ttl=2h")


class TestMistakes:
    @pytest.mark.parametrize("text", ["", "no-uri", "other://host/db", "://host", "x" * 5_000])
    def test_another_scheme_is_an_error_that_names_ours(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=f"{config.SCHEME}://"):
            create_session_service(text)

    @given(st.text())
    def test_no_text_makes_anything_but_a_service_or_a_sentence(self, text: str) -> None:
        for uri in (text, f"{config.SCHEME}://{text}"):
            with suppress(ConfigurationError):
                parse_uri(uri, scheme=config.SCHEME, schemes=config.SCHEMES, options={})

    @pytest.mark.parametrize(
        "end", ["@[bad", "@host:port:port/x?y", "@host/db?colour=blue", "@host#x"]
    )
    def test_no_message_shows_a_password(self, end: str) -> None:
        for scheme in (*config.SCHEMES, "other"):
            shown = ""
            try:
                service = create_session_service(f"{scheme}://user:hunter2{end}")
                shown = str(service) + repr(vars(service.store))
            except ConfigurationError as error:
                shown = str(error)
            assert "hunter2" not in shown


class TestRegistering:
    """ADK finds this project's scheme, however it calls a factory."""

    async def test_adk_opens_our_uris(self, uri: str, capfd: pytest.CaptureFixture[str]) -> None:
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

    async def test_the_keyword_that_services_yaml_uses_works(self, uri: str) -> None:
        service = create_session_service(uri=uri, agents_dir="agents")
        await service.check()
        await service.close()

    @pytest.mark.parametrize(
        ("missing", "raised"),
        [("driver", ConfigurationError), (f"{config.__name__}.x", ModuleNotFoundError)],
    )
    def test_a_package_can_be_installed_and_a_file_of_this_project_not(
        self, uri: str, monkeypatch: pytest.MonkeyPatch, missing: str, raised: type[Exception]
    ) -> None:
        def open_store(_: object) -> None:
            raise ModuleNotFoundError(name=missing)

        monkeypatch.setattr(config, "open_store", open_store)
        with pytest.raises(raised):
            create_session_service(uri)


class TestTimesToLive:
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
    def test_it_is_read_as_people_write_it(self, text: str | int, seconds: int) -> None:
        assert parse_ttl(text) == seconds

    @pytest.mark.parametrize("text", ["", "soon", "-1", "1.5h", "1 h", "1w", "h", "٣s", True])
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="24h"):
            parse_ttl(text)

    @given(st.integers(0, MAX_TTL))
    def test_it_is_written_so_that_it_reads_the_same(self, seconds: int) -> None:
        written = format_ttl(seconds)
        assert parse_ttl("0" if written == "never" else written) == seconds
