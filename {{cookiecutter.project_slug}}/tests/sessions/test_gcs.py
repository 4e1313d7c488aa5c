"""What is special about Cloud Storage: objects, requests, conditions, lifecycle and errors."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import google.auth
import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.platform import time as platform_time
from google.adk.sessions.session import Session
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError

from {{ cookiecutter.__package }}.sessions import create_session_service, errors
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..servers import gcs as server
from ..servers.gcs_faults import answering, proxied
from .support import APP, SESSION, USER, create, event, exists, get, plant_and_erase, texts

DAY = 86_400
NAME = {"app_name": APP, "user_id": USER, "session_id": SESSION}


def names(uri: str) -> list[str]:
    """Return the names of all objects, without the prefix and random parts."""
    return [re.sub("events=[^/]+", "events=<random>", name) for name in server.objects(uri, SCHEME)]


@pytest.mark.usefixtures("clear_text")
class TestObjects:
    async def test_session_is_a_head_and_one_object_per_event(
        self, service: PersistentSessionService, uri: str
    ) -> None:
        session = await create(service, state={"own": 1, "user:a/b": 2, "app:c": 3})
        await service.append_event(session, event("first", own=2))
        await service.append_event(session, event("second", user__d=4))
        assert names(uri) == [
            "app=app/state/key=c",
            "app=app/user=user/session=session/events=<random>/0000000001",
            "app=app/user=user/session=session/events=<random>/0000000002",
            "app=app/user=user/session=session/head",
            "app=app/user=user/state/key=a%2Fb",
            "app=app/user=user/state/key=d",
        ]

    async def test_deleted_session_leaves_only_shared_state(
        self, service: PersistentSessionService, uri: str
    ) -> None:
        session = await create(service, state={"user:a": 1, "app:b": 2})
        for number in range(120):
            await service.append_event(session, event(str(number)))
        assert len(names(uri)) > 100
        await service.delete_session(**NAME)
        assert names(uri) == ["app=app/state/key=b", "app=app/user=user/state/key=a"]


@pytest.mark.usefixtures("clear_text")
class TestRequests:
    async def test_requests_do_not_depend_on_session_length(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every hundredth append takes more, because it compacts the session."""
        # The library requests the bucket once per process, for its own telemetry.
        monkeypatch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")

        async def turn(service: PersistentSessionService) -> Session:
            session = await get(service)
            await service.append_event(session, event("question"))
            await service.append_event(session, event("answer", own=1))
            return session

        calls: dict[str, Callable[[PersistentSessionService, Session], Awaitable[Any]]] = {
            "first read": lambda service, _: get(service),
            "append": lambda service, session: service.append_event(session, event()),
            "append user:": lambda service, session: service.append_event(
                session, event(user__a=1)
            ),
            "read": lambda service, _: get(service),
            "turn": lambda service, _: turn(service),
        }
        counted: dict[int, dict[str, int]] = {}
        async with proxied(tmp_path) as (between, service, uri), create_session_service(uri) as own:
            session = await create(own)
            for size in (10, 1_010):
                while len(session.events) < size:
                    await own.append_event(session, event())
                await service.close()
                counted[size] = {}
                for what, call in calls.items():
                    before = between.round_trips
                    result = await call(service, session)
                    counted[size][what] = between.round_trips - before
                    session = result if isinstance(result, Session) else session
        segments = counted[1_010].pop("first read") - counted[10].pop("first read")
        assert 1 <= segments <= 4
        assert counted[10] == {"append": 2, "append user:": 3, "read": 3, "turn": 7}
        assert counted[1_010] == counted[10]


class TestConditions:
    """Events and heads are created only if they do not exist."""

    async def test_one_of_many_writers_wins(
        self, service: PersistentSessionService, uri: str
    ) -> None:
        await create(service)
        async with create_session_service(uri) as other:
            copies = [(each, await get(each)) for each in (service, other) * 4]
            results = await asyncio.gather(
                *(
                    each.append_event(copy, event(str(number)))
                    for number, (each, copy) in enumerate(copies)
                ),
                return_exceptions=True,
            )
            [stored] = [result for result in results if isinstance(result, Event)]
            assert sum(isinstance(result, StaleSessionError) for result in results) == 7
            assert [found.id for found in (await get(other)).events] == [stored.id]

    async def test_one_of_many_creators_wins(
        self, service: PersistentSessionService, uri: str
    ) -> None:
        async with create_session_service(uri) as other:
            results = await asyncio.gather(
                *(create(each, state={"own": n}) for n, each in enumerate((service, other) * 4)),
                return_exceptions=True,
            )
            [created] = [result for result in results if isinstance(result, Session)]
            assert sum(isinstance(result, AlreadyExistsError) for result in results) == 7
            assert (await get(other)).state == created.state

    @pytest.mark.usefixtures("clear_text")
    async def test_append_during_deletion_leaves_nothing(
        self, service: PersistentSessionService, uri: str
    ) -> None:
        async with create_session_service(uri) as other:
            for _ in range(10):
                session = await create(service)
                results = await asyncio.gather(
                    service.append_event(session, event("hi")),
                    other.delete_session(**NAME),
                    return_exceptions=True,
                )
                assert results[1] is None
                assert isinstance(results[0], Event | SessionNotFoundError)
                assert not await exists(other)
                with pytest.raises(SessionNotFoundError):
                    await service.append_event(session, event("late"))
                await other.delete_session(**NAME)
        assert names(uri) == []


class TestLifecycle:
    """A rule of the bucket removes objects a day after their custom time. See the README."""

    @pytest.fixture
    def clock(self) -> Iterator[Callable[[float], float]]:
        """Moves the clock forward by some seconds and returns the time."""
        now = [time.time()]

        def forward(seconds: float) -> float:
            now[0] += seconds
            return now[0]

        platform_time.set_time_provider(lambda: now[0])
        yield forward
        platform_time.reset_time_provider()

    @pytest.mark.usefixtures("clear_text")
    async def test_expired_session_is_removed_but_not_shared_state(
        self, uri: str, clock: Callable[[float], float]
    ) -> None:
        async with create_session_service(uri, ttl="1h") as service:
            session = await create(service, state={"user:a": 1, "app:b": 2})
            await service.append_event(session, event())
            server.apply_lifecycle(uri, SCHEME, clock(2 * DAY))
            assert len(names(uri)) == 4
            server.apply_lifecycle(uri, SCHEME, clock(3_601))
            assert names(uri) == ["app=app/state/key=b", "app=app/user=user/state/key=a"]

    async def test_active_session_is_kept(self, uri: str, clock: Callable[[float], float]) -> None:
        """Its objects are rewritten with a later custom time before they would be removed."""
        async with create_session_service(uri, ttl="1h") as service:
            session = await create(service)
            for number in range(150):
                await service.append_event(session, event(str(number)))
                server.apply_lifecycle(uri, SCHEME, clock(3_000))
        async with create_session_service(uri) as service:
            assert texts(await get(service)) == [str(number) for number in range(150)]


async def refusal(uri: str) -> str:
    """Return the error of a check of the URI."""
    sentence = ""
    try:
        async with create_session_service(uri) as service:
            await service.check()
    except errors.StoreUnavailable as error:
        sentence = str(error)
    assert sentence.startswith("Google Cloud Storage at ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "hint"),
        [
            (401, "refuses the credentials"),
            (403, "lacks a permission (because); grant it roles/storage.objectUser"),
            (404, "no such bucket; create it"),
            (429, "no more requests at the moment"),
        ],
    )
    async def test_message_names_the_remedy(self, status: int, hint: str) -> None:
        with answering(status) as uri:
            assert hint in await refusal(uri)

    async def test_missing_bucket_is_reported_and_not_created(
        self, service: PersistentSessionService, tmp_path: Path
    ) -> None:
        session = await create(service)
        with server.serve(tmp_path, SCHEME, **server.FLEETING) as uri:
            missing = uri.replace(f"/{server.BUCKET}", "/missing")
            assert "/missing: there is no such bucket" in await refusal(missing)
            async with create_session_service(missing) as elsewhere:
                for call in (create(elsewhere), elsewhere.append_event(session, event())):
                    with pytest.raises(errors.StoreUnavailable, match="there is no such bucket"):
                        await call
        assert session.events == []

    async def test_missing_credentials_are_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
        sentence = await refusal(f"{SCHEME}://bucket")
        assert "it needs credentials (File /nowhere/key.json was not found" in sentence

    async def test_revoked_credentials_are_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Withdrawn(Credentials):
            def refresh(self, request: Any) -> None:
                raise RefreshError("invalid_grant: secret")  # type: ignore[no-untyped-call]

        withdrawn = Withdrawn()  # type: ignore[no-untyped-call]
        monkeypatch.setattr(google.auth, "default", lambda **_: (withdrawn, None))
        sentence = await refusal(f"{SCHEME}://bucket?timeout=0.3")
        assert "it refuses the credentials" in sentence
        assert "secret" not in sentence

    async def test_loopback_ignores_the_proxy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        with server.serve(tmp_path, SCHEME, **server.FLEETING) as uri:
            async with create_session_service(uri) as service:
                await service.check()

    @pytest.mark.parametrize(
        ("uri", "complaint"),
        [
            ("://", "names no bucket"),
            ("+http://localhost:4443", "names no bucket"),
            ("://user:secret@bucket", "no user and password"),
            ("://bucket?timeout=0", "above 0"),
            ("://bucket?speed=high", "Unknown option"),
        ],
    )
    def test_invalid_uri_is_refused(self, uri: str, complaint: str) -> None:
        with pytest.raises(errors.ConfigurationError, match=complaint) as caught:
            create_session_service(f"{SCHEME}{uri}")
        assert "secret" not in str(caught.value)


async def test_erased_data_is_in_no_object(service: PersistentSessionService, uri: str) -> None:
    await plant_and_erase(service)
    assert names(uri) == [f"app={APP}/user=other/session={SESSION}/head"]
