"""Sessions expire after their time to live (TTL), counted from the last event."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.platform import time as platform_time

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.errors import RefusedValue
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.session import PersistentSession

from .support import APP, SESSION, USER, create, event, exists, get, texts

HOUR = 3_600


class Clock:
    """The clock of the service. The database has its own."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Iterator[Clock]:
    """A clock that tests can move."""
    clock = Clock()
    platform_time.set_time_provider(clock)
    yield clock
    platform_time.reset_time_provider()


@pytest.fixture
async def hourly(uri: str, clock: Clock) -> AsyncIterator[PersistentSessionService]:
    """A service whose sessions expire after an hour."""
    async with create_session_service(uri, ttl="1h") as service:
        yield service


async def test_expired_session_is_gone_for_every_call(
    hourly: PersistentSessionService, clock: Clock
) -> None:
    session = await create(hourly, state={"own": 1})
    clock.ahead = HOUR - 1
    assert await exists(hourly)
    clock.ahead = HOUR + 1
    assert not await exists(hourly)
    assert (await hourly.list_sessions(app_name=APP, user_id=USER)).sessions == []
    assert (await hourly.list_sessions(app_name=APP)).sessions == []
    with pytest.raises(SessionNotFoundError, match="expired"):
        await hourly.append_event(session, event("late"))
    again = await create(hourly)
    assert again.state == {}
    assert (await get(hourly)).events == []


async def test_append_restarts_the_ttl(hourly: PersistentSessionService, clock: Clock) -> None:
    session = await create(hourly)
    for half_hours in range(1, 5):
        clock.ahead = half_hours * HOUR / 2
        await hourly.append_event(session, event(str(half_hours)))
    assert texts(await get(hourly)) == ["1", "2", "3", "4"]
    clock.ahead += HOUR + 1
    assert not await exists(hourly)


async def test_reading_does_not_extend_the_ttl(
    hourly: PersistentSessionService, clock: Clock
) -> None:
    await create(hourly)
    clock.ahead = HOUR / 2
    await get(hourly)
    clock.ahead = HOUR + 1
    assert not await exists(hourly)


async def test_slow_clock_does_not_shorten_the_ttl(
    hourly: PersistentSessionService, clock: Clock
) -> None:
    session = await create(hourly)
    clock.ahead = -2 * HOUR
    await hourly.append_event(session, event("from the past"))
    clock.ahead = HOUR / 2
    assert await exists(hourly)


async def test_user_and_app_state_outlive_an_expired_session(
    hourly: PersistentSessionService, clock: Clock
) -> None:
    await create(hourly, state={"own": 1, "user:name": "Ada", "app:motd": "hi"})
    clock.ahead = HOUR + 1
    assert await hourly.get_user_state(app_name=APP, user_id=USER) == {"name": "Ada"}
    assert (await create(hourly, "later")).state == {"user:name": "Ada", "app:motd": "hi"}


async def test_session_may_set_its_own_ttl(hourly: PersistentSessionService, clock: Clock) -> None:
    short = await hourly.create_session(app_name=APP, user_id=USER, session_id="short", ttl=60)
    await hourly.create_session(app_name=APP, user_id=USER, session_id="long", ttl="7d")
    clock.ahead = 50
    await hourly.append_event(short, event())
    clock.ahead = 100
    assert await exists(hourly, "short")
    clock.ahead = HOUR + 1
    assert not await exists(hourly, "short")
    assert await exists(hourly, "long")


async def test_ttl_of_zero_never_expires(hourly: PersistentSessionService, clock: Clock) -> None:
    session = await hourly.create_session(app_name=APP, user_id=USER, session_id=SESSION, ttl=0)
    assert session.expires_at is None
    clock.ahead = 50 * 365 * 24 * HOUR
    await hourly.append_event(session, event("still here"))
    assert texts(await get(hourly)) == ["still here"]


async def test_ttl_of_a_hundred_years_is_accepted(hourly: PersistentSessionService) -> None:
    session = await hourly.create_session(
        app_name=APP, user_id=USER, session_id=SESSION, ttl="36500d"
    )
    await hourly.append_event(session, event())
    assert await exists(hourly)


async def test_session_reports_its_expiry(hourly: PersistentSessionService, clock: Clock) -> None:
    session = await create(hourly)
    assert isinstance(session, PersistentSession)
    assert session.ttl == HOUR
    assert session.expires_at == pytest.approx(clock() + HOUR, abs=60)
    clock.ahead = HOUR / 2
    await hourly.append_event(session, event())
    assert session.expires_at == pytest.approx(clock() + HOUR, abs=60)


@pytest.mark.parametrize("ttl", ["soon", "-1", "1.5h", "36501d", True, 1.5])
async def test_invalid_ttl_creates_no_session(
    hourly: PersistentSessionService, ttl: object
) -> None:
    with pytest.raises(RefusedValue, match="ttl"):
        await hourly.create_session(
            app_name=APP,
            user_id=USER,
            session_id=SESSION,
            ttl=ttl,  # type: ignore[arg-type]
        )
    assert not await exists(hourly)


async def test_session_expires_after_its_ttl(
    uri: str,
) -> None:
    """The real clock is used. On a slow machine a session may expire late, but never early."""
    async with create_session_service(uri, ttl=1) as service:
        session = await create(service)
        assert isinstance(session, PersistentSession)
        said = 0
        while said < 4:
            ends = session.expires_at
            assert ends is not None
            try:
                await service.append_event(session, event(str(said)))
            except SessionNotFoundError:
                assert time.time() >= ends
                break
            said += 1
            assert session.expires_at is not None
            assert session.expires_at >= ends
            await asyncio.sleep(0.3)
        ends = session.expires_at
        assert ends is not None
        for _ in range(600):
            if not await exists(service):
                break
            await asyncio.sleep(0.1)
        assert not await exists(service)
        assert time.time() >= ends
        assert (await service.list_sessions(app_name=APP)).sessions == []


class TestClockSkew:
    """Two processes serve the same sessions, and their clocks differ by minutes."""

    MINUTES = 4 * 60

    async def test_skewed_writers_do_not_shorten_the_ttl(
        self, hourly: PersistentSessionService, uri: str, clock: Clock
    ) -> None:
        async with create_session_service(uri, ttl="1h") as other:
            await create(hourly)
            ends = 0.0
            for turn in range(10):
                clock.ahead = self.MINUTES if turn % 2 else -self.MINUTES
                service = other if turn % 2 else hourly
                session = await get(service)
                await service.append_event(session, event(str(turn), timestamp=clock()))
                assert isinstance(session, PersistentSession)
                assert session.expires_at is not None
                assert session.expires_at >= ends
                ends = session.expires_at
            for service, ahead in ((hourly, -self.MINUTES), (other, self.MINUTES)):
                clock.ahead = ahead
                assert texts(await get(service)) == [str(turn) for turn in range(10)]

    async def test_session_recreated_by_a_fast_clock_replaces_the_old_one(
        self, hourly: PersistentSessionService, uri: str, clock: Clock
    ) -> None:
        async with create_session_service(uri, ttl="1h") as other:
            session = await create(hourly, state={"own": "old"})
            await hourly.append_event(session, event("old"))
            clock.ahead = HOUR - self.MINUTES
            assert await exists(hourly)
            clock.ahead = HOUR + self.MINUTES
            assert not await exists(other)
            await create(other, state={"own": "new"})
            clock.ahead = HOUR - self.MINUTES
            assert (await get(hourly)).state == {"own": "new"}
            with pytest.raises(StaleSessionError):
                await hourly.append_event(session, event("late"))
            assert texts(await get(hourly)) == []
