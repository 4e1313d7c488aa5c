"""Cloud Storage: names, format, sizes and damage of objects, deletions, and forked processes."""

import asyncio
import json
import os
import random
import zlib
from multiprocessing import get_context
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from google.adk.sessions.base_session_service import GetSessionConfig

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.commands.cli import sessions
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.errors import SessionStoreError
from {{ cookiecutter.__package }}.sessions.gcs import bucket as gcs_bucket
from {{ cookiecutter.__package }}.sessions.gcs.records import (
    Checkpoint,
    EventRecord,
    SharedValue,
    encode,
)
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.store import ScopedState

from ..servers import gcs as server
from ..servers.gcs_faults import proxied
from ..servers.proxy import Fault
from ..sessions.support import APP, ODD_IDS, SESSION, USER, create, event, get, texts
from .gcs_support import KEY, folder_of, new_log

NAME = {"app_name": APP, "user_id": USER, "session_id": SESSION}


async def test_object_names_are_short_printable_and_unique(
    service: PersistentSessionService, uri: str
) -> None:
    ids = [*ODD_IDS, "x" * 10_000, "x" * 10_001, "é" * 3_000]
    for odd in ids:
        state = {odd: 1, f"user:{odd}": 2, f"app:{odd}": 3}
        for app, user, session in ((odd, "u", "s"), ("a", odd, "s"), ("a", "u", f"s{odd}s")):
            await service.create_session(
                app_name=app, user_id=user, session_id=session, state=state, ttl=0
            )
    found = server.objects(uri, SCHEME)
    assert len([name for name in found if name.endswith("/head")]) == 3 * len(ids)
    assert max(map(len, found)) < 900
    assert all(name.isascii() and name.isprintable() for name in found)
    assert not any({"", ".", ".."} & set(name.split("/")) for name in found)


STORED = {
    EventRecord: {
        "event": {"revision": 1, "timestamp": 2.5, "data": "\x00\xff"},
        "expires_at": None,
        "state": {"app": {"a": "1"}, "user": {"u": "2"}, "session": {"s": "3"}},
    },
    Checkpoint: {
        "head": {
            "key": {"app_name": "a", "user_id": "u", "session_id": "s"},
            "position": {"incarnation": "i", "revision": 7},
            "updated_at": 1.0,
            "ttl": 60,
            "expires_at": 61.0,
        },
        "state": {"s": "3"},
        "shared": {"app": {}, "user": {}, "session": {}},
        "segments": [{"name": "n", "first": 1, "last": 7, "oldest": 0.5}],
    },
    SharedValue: {"key": "k", "value": "1", "stamp": [1.5, 12, "name"], "user_id": "u"},
}
"""The contents of objects. Sessions that are stored like this must stay readable."""


@pytest.mark.parametrize("record", STORED)
def test_stored_format_is_stable(
    record: type[EventRecord] | type[Checkpoint] | type[SharedValue],
) -> None:
    stored = {"format": 1, "record": STORED[record]}
    assert json.loads(encode(record.decode(json.dumps(stored).encode()))) == stored


async def test_large_content_is_read(service: PersistentSessionService, uri: str) -> None:
    noise = "".join(chr(33 + number * number % 9_001) for number in range(20_000))
    session = await create(service, state={"own": noise, "user:a": noise, "app:b": noise})
    for number in range(3):
        await service.append_event(session, event(f"{number}{noise}", own=noise[number:]))
    async with create_session_service(uri) as other:
        for _ in ("first", "again"):
            stored = await get(other)
            assert texts(stored) == [f"{number}{noise}" for number in range(3)]
            assert stored.state == session.state
        [listed] = (await other.list_sessions(app_name=APP)).sessions
        assert listed.state == session.state
        await other.append_event(stored, event("small"))
        last = await get(service, config=GetSessionConfig(num_recent_events=1))
        assert texts(last) == ["small"]


async def test_event_of_many_megabytes_is_stored(service: PersistentSessionService) -> None:
    session = await create(service)
    large = random.Random(1).randbytes(10_000_000).hex()
    await service.append_event(session, event(large))
    await service.store.close()
    assert texts(await get(service)) == [large]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "cannot be read"),
        (zlib.compress(b"[]"), "cannot be read"),
        (zlib.compress(b'{"format": 2}'), "format 2, which a newer version writes"),
    ],
)
async def test_damaged_head_affects_only_its_session(
    service: PersistentSessionService, uri: str, content: bytes, complaint: str
) -> None:
    session = await create(service)
    await create(service, "other")
    bucket, _ = server.open_bucket(uri, SCHEME)
    bucket.blob(f"{folder_of(service)}head").upload_from_string(content)
    bucket.client.close()
    async with create_session_service(uri) as reader:
        for call in (get, create, lambda store: store.append_event(session, event("hi"))):
            with pytest.raises(SessionStoreError) as caught:
                await call(reader)
            assert complaint in str(caught.value)
            assert "session=session/head" in str(caught.value)
            assert str(caught.value).endswith(".")
        assert session.events == []
        listed = (await reader.list_sessions(app_name=APP, user_id=USER)).sessions
        assert [found.id for found in listed] == ["other"]
        await reader.delete_session(**NAME)
        await create(reader)


async def test_damaged_head_is_found_and_its_session_deleted(
    service: PersistentSessionService, uri: str
) -> None:
    """No list has it, but what the store says of it is shown."""

    async def run(*arguments: str) -> Result:
        everything = [*arguments, "--app", APP, "--uri", uri]
        return await asyncio.to_thread(CliRunner().invoke, sessions, everything)

    await create(service)
    bucket, _ = server.open_bucket(uri, SCHEME)
    bucket.blob(f"{folder_of(service)}head").upload_from_string(b"")
    bucket.client.close()
    for arguments, ending in (
        ([], "--remove removes them."),
        (["--remove", "--yes"], "set the value anew."),
    ):
        found = await run("check", *arguments)
        assert found.exit_code == 1
        assert "session=session/head" in found.stdout
        assert found.stderr.endswith(f"{ending}\n")
    assert (await run("delete", "--yes", "--user", USER, SESSION)).exit_code == 0
    assert (await run("check")).exit_code == 0


@pytest.mark.usefixtures("clear_text")
async def test_long_deletion_does_not_time_out(
    service: PersistentSessionService, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only waiting for other processes has a time limit, and there are none."""
    await new_log(service, 320)
    monkeypatch.setattr(gcs_bucket, "PATIENCE", 0.0)
    await service.delete_session(**NAME)
    assert server.objects(uri, SCHEME) == []


@pytest.mark.usefixtures("clear_text")
async def test_deletion_succeeds_despite_lost_replies(tmp_path: Path) -> None:
    """The library repeats each deletion and finds the object gone."""
    async with proxied(tmp_path) as (between, service, uri):
        for known in (True, False):
            await new_log(service, 5)
            if not known:
                await service.store.close()
            between.inject_once(Fault.LOSE_REPLY)
            await service.delete_session(**NAME)
            assert server.objects(uri, SCHEME) == []


async def test_creation_removes_objects_of_the_expired_session(
    service: PersistentSessionService, uri: str
) -> None:
    store = service.store.innermost
    first = await store.create(KEY, incarnation="a", state=ScopedState(), now=1.0, ttl=60)
    await store.append(
        KEY,
        expected=first.head.position,
        event=b"old",
        timestamp=1.0,
        state=ScopedState(session={"old": b"1"}),
        now=2.0,
    )
    second = await store.create(KEY, incarnation="b", state=ScopedState(), now=100.0, ttl=60)
    found = await store.load(KEY, now=100.0)
    assert found
    assert (found.head, found.state, [*found.events]) == (second.head, ScopedState(), [])
    assert server.objects(uri, SCHEME) == ["app=app/user=user/session=session/head"]


def use_in_child(service: PersistentSessionService) -> None:
    """Append to the session in a forked child."""

    async def append() -> None:
        await service.append_event(await get(service), event("child"))
        await service.close()

    asyncio.run(append())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_service_works_in_a_forked_child(uri: str) -> None:
    service = create_session_service(uri)

    async def before() -> None:
        await service.append_event(await create(service), event("parent"))

    async def after() -> list[str | None]:
        async with service:
            return texts(await get(service))

    asyncio.run(before())
    child = get_context("fork").Process(target=use_in_child, args=(service,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert asyncio.run(after()) == ["parent", "child"]
