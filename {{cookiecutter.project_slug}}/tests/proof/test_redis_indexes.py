"""Redis: the indexes list all live sessions and users, and expire with the last of them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from ..servers import redis as server
from ..sessions.support import APP, USER, create, event
from .redis_services import open_service


@pytest.fixture
def own_uri(tmp_path: Path) -> Iterator[str]:
    """A server of its own, so that all keys are known."""
    with server.serve(tmp_path, "redis") as uri:
        yield uri


async def test_live_session_is_listed(own_uri: str) -> None:
    async with open_service(own_uri, ttl=4) as service:
        session = await create(service)
        for _ in range(4):
            await asyncio.sleep(1.5)
            await service.append_event(session, event())
            for user_id in (USER, None):
                listed = await service.list_sessions(app_name=APP, user_id=user_id)
                assert [found.id for found in listed.sessions] == [session.id]


async def test_indexes_expire_with_their_last_session(own_uri: str) -> None:
    async with open_service(own_uri, ttl=10) as service:
        with redis.Redis(port=urlsplit(own_uri).port or 0) as client:
            await service.create_session(app_name=APP, user_id=USER, session_id="long", ttl=100)
            await create(service, "short")
            assert client.ttl("sessions:{app/user}:sessions") > 90
            await service.create_session(app_name=APP, user_id=USER, session_id="ever", ttl=0)
            assert client.ttl("sessions:{app/user}:sessions") == -1
            await service.delete_session(app_name=APP, user_id=USER, session_id="ever")
            assert client.ttl("sessions:{app}:users") > 90


async def test_event_with_a_thousand_user_keys_is_stored(own_uri: str) -> None:
    async with open_service(own_uri) as service:
        session = await create(service)
        state: dict[str, Any] = {f"user__{number}": number for number in range(2_500)}
        await service.append_event(session, event(**state))
        kept = await service.get_user_state(app_name=APP, user_id=USER)
        assert kept == {str(number): number for number in range(2_500)}
