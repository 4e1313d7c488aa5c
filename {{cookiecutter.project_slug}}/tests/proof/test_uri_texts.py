"""Any text is a valid session URI or time to live, or is refused in one sentence."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from {{ cookiecutter.__package }}.sessions import config
from {{ cookiecutter.__package }}.sessions.errors import ConfigurationError
from {{ cookiecutter.__package }}.sessions.ttl import MAX_TTL, format_ttl, parse_ttl
from {{ cookiecutter.__package }}.sessions.uri import parse_uri


@given(st.text())
def test_text_is_a_valid_uri_or_refused_in_one_sentence(text: str) -> None:
    for uri in (text, f"{config.SCHEME}://{text}"):
        with suppress(ConfigurationError):
            parse_uri(uri, scheme=config.SCHEME, schemes=config.SCHEMES, options={})


@given(st.integers(0, MAX_TTL))
def test_formatted_ttl_parses_to_the_same_value(seconds: int) -> None:
    written = format_ttl(seconds)
    assert parse_ttl("0" if written == "never" else written) == seconds
