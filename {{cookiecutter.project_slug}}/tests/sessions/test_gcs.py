"""What is particular to Cloud Storage: its objects and what is left of them, its errors, its requests."""

import asyncio
import json
import random
import socket
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import google.auth
import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.sessions.base_session_service import GetSessionConfig
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import RefreshError
from {{ cookiecutter.__package }}.sessions.stores import gcs, gcs_housekeeping

from {{ cookiecutter.__package }}.sessions import create_session_service, errors
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.gcs.names import head_of
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.store import (
    Position,
    ScopedState,
    SessionKey,
    Stale,
)

from ..servers import gcs as server
from ..servers import proxy
from ..servers.proxy import Proxy, Weather
from .support import APP, ODD_IDS, SESSION, USER, create, event, exists, get, texts

KEY = SessionKey(APP, USER, SESSION)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An emulator that is ours."""
    with server.serve(tmp_path_factory.mktemp("own"), SCHEME, **server.FLEETING) as uri:
        yield uri


@pytest.fixture
def own_uri(emulator: str) -> Iterator[str]:
    """A corner of it."""
    with server.namespace(emulator, SCHEME) as own:
        yield own


@pytest.fixture
async def own(own_uri: str) -> AsyncIterator[PersistentSessionService]:
    """A service in that corner."""
    async with create_session_service(own_uri) as service:
        yield service


@asynccontextmanager
async def proxied(uri: str) -> AsyncIterator[tuple[Proxy, PersistentSessionService]]:
    """A proxy before the emulator, and a service that goes through it."""
    port = urlsplit(uri).port or 0
    async with proxy.run("127.0.0.1", port) as between:
        through = f"{uri.replace(str(port), str(between.port))}?timeout=2"
        async with create_session_service(through) as service:
            yield between, service


def store_of(service: PersistentSessionService) -> gcs.GCSStore:
    assert isinstance(service.store, gcs.GCSStore)
    return service.store


def names(uri: str) -> list[str]:
    """Return the names of all objects in a corner, without what they have in common."""
    bucket, prefix = server.open_bucket(uri, SCHEME)
    found = [blob.name.removeprefix(f"{prefix}/") for blob in bucket.list_blobs(prefix=prefix)]
    bucket.client.close()
    return found


async def fill(
    service: PersistentSessionService, first: int, last: int, incarnation: str, said: bytes = b""
) -> None:
    """Append events that only have numbers, as fast as the store can."""
    for revision in range(first, last + 1):
        await service.store.append(
            KEY,
            expected=Position(incarnation, revision - 1),
            event=said or b"%d" % revision,
            timestamp=float(revision),
            state=ScopedState(session={"last": b"%d" % revision}),
            now=1.0,
        )


async def new_log(service: PersistentSessionService) -> str:
    """Create a session for `fill` and return its incarnation."""
    stored = await service.store.create(
        KEY, incarnation="incarnation", state=ScopedState(), now=1.0, ttl=0
    )
    return stored.head.position.incarnation


async def numbers(service: PersistentSessionService, **filters: Any) -> list[int]:
    """Return the numbers of the events that come back."""
    stored = await service.store.load(KEY, now=1.0, **filters)
    assert stored is not None
    assert stored.state.session == {"last": b"%d" % stored.head.position.revision}
    assert [found.data for found in stored.events] == [b"%d" % at.revision for at in stored.events]
    return [found.revision for found in stored.events]


class TestObjects:
    async def test_names_are_short_plain_and_different(
        self, own: PersistentSessionService, own_uri: str
    ) -> None:
        ids = [*ODD_IDS, "x" * 10_000, "x" * 10_001, "é" * 3_000]
        for odd in ids:
            state = {odd: 1, f"user:{odd}": 2, f"app:{odd}": 3}
            for parts in ((odd, "u", "s"), ("a", odd, "s"), ("a", "u", f"s{odd}s")):
                app, user, session = parts
                await own.create_session(
                    app_name=app, user_id=user, session_id=session, state=state, ttl=0
                )
        found = names(own_uri)
        assert len([name for name in found if name.endswith("/~")]) == 3 * len(ids)
        assert max(map(len, found)) < 900
        assert all(name.isascii() and name.isprintable() for name in found)
        assert not any({"", ".", ".."} & set(name.split("/")) for name in found)

    async def test_a_deleted_session_leaves_nothing(
        self, own: PersistentSessionService, own_uri: str
    ) -> None:
        incarnation = await new_log(own)
        await fill(own, 1, 120, incarnation)
        await own.store.close()
        assert names(own_uri)
        await own.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert names(own_uri) == []

    async def test_state_of_user_and_app_stays(
        self, own: PersistentSessionService, own_uri: str
    ) -> None:
        session = await create(own, state={"user:a": 1, "app:b": 2})
        await own.append_event(session, event(user__c=3))
        await own.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert names(own_uri) == [
            "app=app/state/key=b",
            "app=app/user=user/state/key=a",
            "app=app/user=user/state/key=c",
        ]

    async def test_what_expired_is_removed_when_somebody_comes_by(
        self, own: PersistentSessionService, own_uri: str
    ) -> None:
        for number, visit in enumerate(("load", "list", "create")):
            key = SessionKey(APP, USER, f"{number}")
            store = store_of(own)
            created = await store.create(key, incarnation="m", state=ScopedState(), now=1.0, ttl=60)
            await store.append(
                key,
                expected=created.head.position,
                event=b"",
                timestamp=1.0,
                state=ScopedState(),
                now=2.0,
            )
            for now, left in ((63.0, True), (500.0, False)):
                if visit == "load":
                    assert await store.load(key, now=now) is None
                elif visit == "list":
                    assert await store.list(APP, USER, now=now) == []
                else:
                    store._housekeeping.purge_at = 0.0
                    other = SessionKey(APP, "a", f"{now}")
                    await store.create(other, incarnation="m", state=ScopedState(), now=now, ttl=0)
                await store.close()
                gone = [name for name in names(own_uri) if f"user/session={number}" in name]
                assert bool(gone) is left, visit

    async def test_a_purge_goes_through_the_bucket_piece_by_piece(
        self, own: PersistentSessionService, own_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gcs_housekeeping, "PURGE_BATCH", 7)
        store = store_of(own)
        for number in range(10):
            for user, ttl in (("short", 60), ("for ever", 0)):
                key = SessionKey(APP, user, f"{number}")
                state = ScopedState(user={f"{number}": b"1"})
                await store.create(key, incarnation="m", state=state, now=1.0, ttl=ttl)
        for _ in range(12):
            store._housekeeping.purge_at = 0.0
            store._housekeeping.purge_some(store._names.session(KEY), 1_000.0)
            await store.close()
        sessions = [name for name in names(own_uri) if "/session=" in name]
        assert len(sessions) == 10
        assert all("user=for%20ever/" in name for name in sessions)

    async def test_objects_of_a_session_that_goes_on_are_kept_long_enough(
        self, own: PersistentSessionService, own_uri: str
    ) -> None:
        """A rule of the bucket may remove what is a day behind its custom time."""
        day, store = 86_400.0, store_of(own)
        created = await store.create(KEY, incarnation="m", state=ScopedState(), now=0.0, ttl=3_600)
        position, now = created.head.position, 0.0
        for _ in range(200):
            now += 3_000.0
            head = await store.append(
                KEY, expected=position, event=b"e", timestamp=now, state=ScopedState(), now=now
            )
            position = head.position
            await store._bucket.run(lambda: None)
        await store.close()
        assert now > 6 * day
        bucket, prefix = server.open_bucket(own_uri, SCHEME)
        needed = {
            blob.name: blob.custom_time.timestamp()
            for blob in bucket.list_blobs(prefix=prefix)
            if blob.name.endswith("/~") or blob.name[-8:].isalnum()
        }
        bucket.client.close()
        view = store._log.look(store._names.session(KEY))
        assert view is not None
        used = [head_of(store._names.session(KEY)), *(part.name for part in view.base.segments)]
        used += [item.name for item, _ in view.tail.values()]
        await store.close()
        for name in used:
            assert needed.get(name, now + day) >= now + 3_600, name


class TestCompaction:
    async def test_old_events_are_kept_together_and_read_in_a_few_requests(
        self, own: PersistentSessionService, own_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The library asks for the bucket once a process, in case somebody traces it.
        monkeypatch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        counted: dict[int, dict[str, int]] = {}
        kept = gcs_housekeeping.COMPACT_AT
        incarnation = await new_log(own)
        at = 0
        for size in (10, 1_000):
            await fill(own, at + 1, size, incarnation)
            await own.store.close()
            at = size + 1
            monkeypatch.setattr(gcs_housekeeping, "COMPACT_AT", 10_000)
            async with proxied(own_uri) as (between, service):
                counted[size] = {}
                for what in ("first read", "append", "read"):
                    before = between.round_trips
                    if what == "append":
                        await fill(service, size + 1, size + 1, incarnation)
                    else:
                        after = 0 if what == "first read" else size
                        assert await numbers(service, after_revision=after) == list(
                            range(after + 1, size + 1 + (what == "read"))
                        )
                    counted[size][what] = between.round_trips - before
            monkeypatch.setattr(gcs_housekeeping, "COMPACT_AT", kept)
        segments = counted[1_000].pop("first read") - counted[10]["first read"]
        assert 1 <= segments <= 4
        assert counted == {
            10: {"first read": 4, "append": 2, "read": 3},
            1_000: {"append": 2, "read": 3},
        }

    @pytest.mark.parametrize("grace", [gcs_housekeeping.GRACE, 0.0])
    async def test_filters_reach_across_segments(
        self, own: PersistentSessionService, monkeypatch: pytest.MonkeyPatch, grace: float
    ) -> None:
        monkeypatch.setattr(gcs_housekeeping, "COMPACT_AT", 10)
        monkeypatch.setattr(gcs_housekeeping, "GRACE", grace)
        incarnation = await new_log(own)
        for at in range(1, 76, 5):
            await fill(own, at, at + 4, incarnation)
            await asyncio.sleep(0.02)
        for _ in ("first", "again"):
            assert await numbers(own) == list(range(1, 76))
            for count in (0, 1, 5, 6, 30, 74, 75, 99):
                expected = list(range(1, 76))[75 - min(count, 75) :]
                assert await numbers(own, limit=count) == expected
                assert await numbers(own, since=75.5 - count) == expected
                assert await numbers(own, limit=40, since=75.5 - count) == expected[-40:]
                assert await numbers(own, after_revision=20, limit=count) == expected[-55:]
            await own.store.close()

    async def test_a_late_writer_finds_its_name_free_and_is_refused_all_the_same(
        self, own: PersistentSessionService, own_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gcs_housekeeping, "COMPACT_AT", 10)
        monkeypatch.setattr(gcs_housekeeping, "GRACE", 0.0)
        incarnation = await new_log(own)
        async with create_session_service(own_uri) as other:
            await fill(own, 1, 5, incarnation)
            assert await numbers(other) == [1, 2, 3, 4, 5]
            for at in range(6, 46, 10):
                await fill(own, at, at + 9, incarnation)
                await own.store.close()
            before = names(own_uri)
            assert not any(name.endswith("/0000000006") for name in before)
            with pytest.raises(Stale):
                await fill(other, 6, 6, incarnation, said=b"something else")
        assert names(own_uri) == before
        assert await numbers(own) == list(range(1, 46))

    async def test_two_that_compact_at_once_do_no_harm(
        self, own: PersistentSessionService, own_uri: str
    ) -> None:
        incarnation = await new_log(own)
        await fill(own, 1, 30, incarnation)
        async with create_session_service(own_uri) as other:
            folder = store_of(own)._names.session(KEY)
            await asyncio.gather(
                *(
                    asyncio.to_thread(store_of(each)._housekeeping.compact, folder)
                    for each in (own, other) * 3
                )
            )
            assert await numbers(other) == await numbers(own) == list(range(1, 31))
            await fill(own, 31, 31, incarnation)
        assert len([name for name in names(own_uri) if name[-9] == "-"]) == 1

    async def test_writers_and_compaction_do_not_get_into_each_others_way(
        self, own: PersistentSessionService, own_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gcs_housekeeping, "COMPACT_AT", 10)
        await create(own)

        async def work(service: PersistentSessionService, name: str) -> None:
            for turn in range(1, 21):
                changes: dict[str, Any] = {name: turn, f"user__{name}": turn}
                said = event(f"{name} {turn}", **changes)
                while True:
                    try:
                        await service.append_event(await get(service), said)
                        break
                    except StaleSessionError:
                        continue

        async with create_session_service(own_uri) as other:
            await asyncio.gather(work(own, "a"), work(own, "b"), work(other, "c"))
        await own.store.close()
        stored = await get(own)
        assert any(name[-9] == "-" for name in names(own_uri)), "nothing was compacted"
        for name in "abc":
            said = [text for text in texts(stored) if text and text[0] == name]
            assert said == [f"{name} {turn}" for turn in range(1, 21)]
        assert stored.state == dict.fromkeys(("a", "b", "c", "user:a", "user:b", "user:c"), 20)

    async def test_an_event_counts_that_was_compacted_while_it_was_stored(
        self, own: PersistentSessionService, own_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its writer finds another head than it knew, and its own event in a segment."""
        incarnation = await new_log(own)
        await fill(own, 1, 3, incarnation)
        store = store_of(own)
        look = store._bucket.get

        def compacted_before(name: str) -> Any:
            monkeypatch.undo()
            while not any(each.endswith("/0000000004") for each in names(own_uri)):
                pass
            store._housekeeping.compact(store._names.session(KEY))
            return look(name)

        monkeypatch.setattr(store._bucket, "get", compacted_before)
        await fill(own, 4, 5, incarnation)
        assert await numbers(own) == [1, 2, 3, 4, 5]


class TestSharedState:
    async def test_a_reader_finishes_what_a_killed_writer_began(
        self, own: PersistentSessionService, own_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = await create(own, state={"user:old": 1})
        await create(own, "other")

        def killed(*_: Any) -> Any:
            raise errors.StoreUnavailable("killed")

        monkeypatch.setattr(store_of(own)._shared, "_write", killed)
        with pytest.raises(errors.StoreUnavailable):
            await own.append_event(session, event("hi", own=1, user__name="Ada", app__motd="hi"))
        expected = {"user:old": 1, "user:name": "Ada", "app:motd": "hi"}
        async with create_session_service(own_uri) as reader:
            assert (await get(reader, "other")).state == {"user:old": 1}
            assert (await get(reader)).state == expected | {"own": 1}
            assert (await get(reader, "other")).state == expected

    async def test_finishing_late_does_not_bring_back_an_older_value(
        self, own: PersistentSessionService, own_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = await create(own, "first"), await create(own, "second")
        with monkeypatch.context() as patch:
            patch.setattr(store_of(own)._shared, "write", lambda values: [])
            await own.append_event(first, event(user__name="older", user__alone=1))
        await own.append_event(second, event(user__name="newer"))
        async with create_session_service(own_uri) as reader:
            assert (await get(reader, "first")).state == {"user:name": "newer", "user:alone": 1}
            assert (await get(reader, "second")).state == {"user:name": "newer", "user:alone": 1}

    async def test_many_sessions_that_set_keys_of_one_app_lose_none(
        self, own: PersistentSessionService, own_uri: str
    ) -> None:
        async with create_session_service(own_uri) as other:

            async def work(name: int, service: PersistentSessionService) -> None:
                session = await create(service, f"{name}", user_id=f"{name}")
                for turn in range(3):
                    changes: dict[str, Any] = {f"app__k{name}": turn, "app__same": f"{name} {turn}"}
                    await service.append_event(session, event(**changes))

            await asyncio.gather(*(work(name, own if name % 2 else other) for name in range(6)))
            state = (await create(own, "last")).state
            assert {name: state[f"app:k{name}"] for name in range(6)} == dict.fromkeys(range(6), 2)
            assert state["app:same"].endswith(" 2")


class TestSizes:
    async def test_what_is_too_large_for_a_list_is_read_all_the_same(
        self, own: PersistentSessionService, own_uri: str
    ) -> None:
        noise = "".join(chr(33 + number * number % 9_001) for number in range(20_000))
        session = await create(own, state={"own": noise, "user:a": noise, "app:b": noise})
        for number in range(3):
            await own.append_event(session, event(f"{number}{noise}", own=noise[number:]))
        async with create_session_service(own_uri) as other:
            for _ in ("first", "again"):
                stored = await get(other)
                assert texts(stored) == [f"{number}{noise}" for number in range(3)]
                assert stored.state == session.state
            await other.append_event(stored, event("small"))
            last = await get(own, config=GetSessionConfig(num_recent_events=1))
            assert texts(last) == ["small"]

    async def test_an_event_of_many_megabytes(self, own: PersistentSessionService) -> None:
        session = await create(own)
        large = random.Random(1).randbytes(10_000_000).hex()
        await own.append_event(session, event(large))
        await own.store.close()
        assert texts(await get(own)) == [large]


class TestDamage:
    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (b"", "cannot be read"),
            (zlib.compress(b"[]"), "cannot be read"),
            (zlib.compress(b'{"format": 2}'), "format 2, which a newer version writes"),
        ],
    )
    async def test_a_head_that_cannot_be_read_costs_its_own_session_an_error(
        self, own: PersistentSessionService, own_uri: str, content: bytes, complaint: str
    ) -> None:
        session = await create(own)
        await create(own, "other")
        bucket, prefix = server.open_bucket(own_uri, SCHEME)
        folder = store_of(own)._names.session(KEY)
        assert folder.startswith(prefix)
        bucket.blob(head_of(folder)).upload_from_string(content)
        bucket.client.close()
        async with create_session_service(own_uri) as reader:
            for call in (get, create, lambda store: store.append_event(session, event("hi"))):
                with pytest.raises(errors.SessionStoreError) as caught:
                    await call(reader)
                assert complaint in str(caught.value)
                assert "session=session/~" in str(caught.value)
                assert str(caught.value).endswith(".")
            assert session.events == []
            listed = (await reader.list_sessions(app_name=APP, user_id=USER)).sessions
            assert [found.id for found in listed] == ["other"]
            await reader.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
            await create(reader)


class TestWeather:
    async def test_the_event_loop_goes_on_while_the_bucket_is_slow(self, own_uri: str) -> None:
        async with proxied(own_uri) as (between, service):
            between.delay = 0.5
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.01)
                    ticks += 1

            ticking = asyncio.ensure_future(tick())
            await create(service)
            ticking.cancel()
            assert ticks > 10

    @pytest.mark.parametrize("weather", [Weather.REFUSE, Weather.SILENCE])
    async def test_a_server_that_is_away_leaves_the_session_as_it_was(
        self, own_uri: str, weather: Weather
    ) -> None:
        async with proxied(own_uri) as (between, service):
            session = await create(service)
            said = event("hi", own=1)
            between.weather = weather
            with pytest.raises(errors.StoreUnavailable) as caught:
                await service.append_event(session, said)
            sentence = str(caught.value)
            assert ("did not answer" if weather is Weather.SILENCE else "reached") in sentence
            assert session.events == []
            assert session.state == {}
            between.weather = Weather.FINE
            await service.append_event(session, said)
            assert texts(await get(service)) == ["hi"]

    async def test_an_event_whose_reply_was_lost_is_there_once(self, own_uri: str) -> None:
        async with proxied(own_uri) as (between, service):
            session = await create(service)
            said = event("hi", own=1, user__name="Ada")
            between.weather = Weather.LOSE_REPLY
            with pytest.raises(errors.StoreUnavailable):
                await service.append_event(session, said)
            between.weather = Weather.FINE
            await service.append_event(session, said)
            await service.append_event(session, event("again"))
            stored = await get(service)
            assert texts(stored) == ["hi", "again"]
            assert stored.state == {"own": 1, "user:name": "Ada"}

    async def test_deleting_and_appending_at_the_same_time(self, own_uri: str) -> None:
        """Whatever comes first, in the end there is no session and nothing of it."""
        async with create_session_service(own_uri) as one, create_session_service(own_uri) as two:
            for number in range(20):
                session = await create(one, f"{number}")
                name = {"app_name": APP, "user_id": USER, "session_id": session.id}
                results = await asyncio.gather(
                    one.append_event(session, event("hi")),
                    two.delete_session(**name),
                    return_exceptions=True,
                )
                assert results[1] is None
                assert results[0] is None or isinstance(
                    results[0], SessionNotFoundError | type(event())
                )
                assert not await exists(two, session.id)
                with pytest.raises((SessionNotFoundError, StaleSessionError)):
                    await one.append_event(session, event("late"))
                await two.delete_session(**name)
        assert names(own_uri) == []


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[str]:
    """A server that answers every request alike, and the URI of a bucket on it."""
    body = body or json.dumps({"error": {"code": status, "message": "because"}}).encode()

    class Answer(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as serving:
        Thread(target=serving.serve_forever, args=(0.01,)).start()
        try:
            yield f"{SCHEME}+http://127.0.0.1:{serving.server_port}/bucket?timeout=2"
        finally:
            serving.shutdown()


async def refusal(uri: str) -> str:
    """Return the sentence that a check of the URI ends with."""
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


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "mend"),
        [
            (401, "refuses the credentials"),
            (403, "(because); grant it roles/storage.objectUser"),
            (404, "no such bucket; create it"),
            (429, "no more requests for the moment"),
            (500, "answers 500 (because)"),
            (503, "answers 503 (because)"),
        ],
    )
    async def test_what_the_service_answers(
        self, own: PersistentSessionService, status: int, mend: str
    ) -> None:
        session = await create(own)
        with answering(status) as uri:
            assert mend in await refusal(uri)
            async with create_session_service(uri) as service:
                with pytest.raises((errors.StoreUnavailable, SessionNotFoundError)):
                    await service.append_event(session, event("hi", own=1))
        assert session.events == []
        assert session.state == {}
        await own.append_event(session, event("hi", own=1))

    @pytest.mark.parametrize(
        "body",
        [
            b"<html>Welcome to this hotel's network</html>",
            b"[]",
            b"\xff",
            b'{"items": [{"name": 1}]}',
        ],
    )
    async def test_somebody_else_answers(self, body: bytes) -> None:
        with answering(200, body) as uri:
            assert "answers what Google Cloud Storage would not" in await refusal(uri)

    async def test_somebody_answers_who_does_not_speak_http(self) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"-ERR unknown command\r\n")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as serving:
            port = serving.sockets[0].getsockname()[1]
            await refusal(f"{SCHEME}+http://127.0.0.1:{port}/bucket?timeout=0.3")

    async def test_somebody_accepts_and_never_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            sentence = await refusal(f"{SCHEME}+http://127.0.0.1:{port}/bucket?timeout=0.2")
        assert "it did not answer within 0.2 seconds" in sentence

    async def test_a_bucket_that_is_not_there(self, emulator: str) -> None:
        uri = emulator.replace(f"/{server.BUCKET}", "/missing")
        assert "there is no such bucket" in await refusal(uri)
        async with create_session_service(emulator) as there:
            session = await create(there)
            async with create_session_service(uri) as elsewhere:
                with pytest.raises(errors.StoreUnavailable, match="there is no such bucket"):
                    await elsewhere.append_event(session, event("nowhere"))
            assert session.events == []
            await there.delete_session(app_name=APP, user_id=USER, session_id=session.id)

    async def test_nobody_is_there(self) -> None:
        assert "cannot be reached" in await refusal(f"{SCHEME}+http://127.0.0.1:1/b?timeout=0.2")

    async def test_a_server_that_does_not_speak_tls(
        self, emulator: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]
        monkeypatch.setattr(google.auth, "default", lambda **_: (nobody, None))
        endpoint = f"https://{urlsplit(emulator).netloc}"
        uri = f"{SCHEME}://bucket?timeout=0.3&endpoint={endpoint}"
        assert "does not speak TLS" in await refusal(uri)

    async def test_credentials_that_were_withdrawn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Withdrawn(Credentials):
            def refresh(self, request: Any) -> None:
                raise RefreshError("invalid_grant: secret")  # type: ignore[no-untyped-call]

        withdrawn = Withdrawn()  # type: ignore[no-untyped-call]
        monkeypatch.setattr(google.auth, "default", lambda **_: (withdrawn, None))
        sentence = await refusal(f"{SCHEME}://bucket?timeout=0.3")
        assert "it refuses the credentials" in sentence
        assert "secret" not in sentence

    async def test_no_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nowhere(**_: Any) -> Any:
            raise google.auth.exceptions.DefaultCredentialsError("nowhere")  # type: ignore[no-untyped-call]

        monkeypatch.setattr(google.auth, "default", nowhere)
        assert "it needs credentials (nowhere); set" in await refusal(f"{SCHEME}://bucket")

    @pytest.mark.parametrize("content", [None, "secret", "{}", '{"type": "service_account"}'])
    async def test_a_key_file_that_is_none(self, tmp_path: Path, content: str | None) -> None:
        path = tmp_path / "key.json"
        if content is not None:
            path.write_text(content)
        async with create_session_service(f"{SCHEME}://bucket?credentials={path}") as service:
            with pytest.raises(errors.ConfigurationError, match="The key file") as caught:
                await service.check()
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("uri", "complaint"),
        [
            ("://", "names no bucket"),
            ("+http://localhost:4443", "names no bucket"),
            ("://user:secret@bucket", "no user and password"),
            ("://bucket?endpoint=http://host", "use the scheme with"),
            ("://bucket?timeout=0", "above 0"),
            ("://bucket?speed=high", "Unknown option"),
        ],
    )
    def test_what_cannot_work(self, uri: str, complaint: str) -> None:
        with pytest.raises(errors.ConfigurationError, match=complaint) as caught:
            create_session_service(f"{SCHEME}{uri}")
        assert "secret" not in str(caught.value)

    async def test_the_emulator_of_the_environment_is_asked_without_credentials(
        self, own_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(**_: Any) -> Any:
            raise AssertionError("somebody looked for credentials")

        monkeypatch.setattr(google.auth, "default", refused)
        parts = urlsplit(own_uri)
        for host in (parts.netloc, f"http://{parts.netloc}"):
            monkeypatch.setenv(gcs.EMULATOR, host)
            async with create_session_service(f"{SCHEME}:/{parts.path}") as service:
                await service.check()
                assert str(parts.netloc) in str(service)
                await create(service, host)
                assert await exists(service, host)
