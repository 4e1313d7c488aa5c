"""With `recent_events=N`, a turn reads only the last N events."""

import pytest
from google.adk.sessions.base_session_service import GetSessionConfig

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.errors import ConfigurationError

from .support import create, event, get, texts, with_options


async def test_read_without_config_returns_the_last_events(uri: str) -> None:
    async with create_session_service(with_options(uri, "recent_events=3")) as service:
        session = await create(service)
        for number in range(10):
            await service.append_event(session, event(str(number), count=number))
        recent = await get(service)
        assert texts(recent) == ["7", "8", "9"]
        assert recent.state == {"count": 9}, "the state is that of all events"
        await service.append_event(recent, event("10"))
        assert texts(recent) == ["7", "8", "9", "10"]
        wanted = await get(service, config=GetSessionConfig(num_recent_events=5))
        assert texts(wanted) == ["6", "7", "8", "9", "10"]
        everything = await get(service, config=GetSessionConfig())
        assert texts(everything) == [str(number) for number in range(11)]


@pytest.mark.parametrize("text", ["-1", "2.5", "many", "9" * 10])
def test_recent_events_must_be_a_whole_number(uri: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match="write a whole number, 0 or above"):
        create_session_service(with_options(uri, f"recent_events={text}"))
