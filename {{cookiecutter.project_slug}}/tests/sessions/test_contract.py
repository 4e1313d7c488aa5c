"""ADK's contract for session services.

Each test runs on this project's service and on ADK's `InMemorySessionService`, the reference.
"""

import pytest
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.sessions.session import Session
from pydantic import ValidationError

from .support import APP, ODD_IDS, SESSION, USER, create, event, exists, get, texts

Service = BaseSessionService


class TestCreate:
    async def test_created_session_can_be_read(self, any_service: Service) -> None:
        created = await create(any_service, state={"color": "blue", "n": 1})
        stored = await get(any_service)
        assert (stored.app_name, stored.user_id, stored.id) == (APP, USER, SESSION)
        assert stored.state == created.state == {"color": "blue", "n": 1}
        assert stored.events == []
        assert stored.last_update_time == created.last_update_time > 0

    @pytest.mark.parametrize("session_id", [None, "", "  "])
    async def test_missing_id_is_generated(
        self, any_service: Service, session_id: str | None
    ) -> None:
        first, second = [
            await any_service.create_session(app_name=APP, user_id=USER, session_id=session_id)
            for _ in range(2)
        ]
        assert first.id.strip()
        assert first.id != second.id

    async def test_session_id_is_stripped(self, any_service: Service) -> None:
        created = await create(any_service, "  padded\n")
        assert created.id == "padded"
        assert await exists(any_service, " padded ")
        await any_service.delete_session(app_name=APP, user_id=USER, session_id="\tpadded")
        assert not await exists(any_service, "padded")

    async def test_app_and_user_names_are_not_stripped(self, any_service: Service) -> None:
        await create(any_service, user_id=" user ")
        assert not await exists(any_service)
        assert await exists(any_service, user_id=" user ")

    async def test_existing_id_is_refused(self, any_service: Service) -> None:
        await create(any_service, state={"first": True})
        with pytest.raises(AlreadyExistsError):
            await create(any_service, f" {SESSION} ", state={"first": False})
        assert (await get(any_service)).state == {"first": True}

    async def test_refused_creation_changes_no_state(self, any_service: Service) -> None:
        await create(any_service)
        with pytest.raises(AlreadyExistsError):
            await create(any_service, state={"user:name": "Eve", "app:banner": "hi", "own": 1})
        assert (await get(any_service)).state == {}
        assert await any_service.get_user_state(app_name=APP, user_id=USER) == {}

    async def test_users_and_apps_may_use_the_same_id(self, any_service: Service) -> None:
        await create(any_service, state={"who": "user"})
        await create(any_service, user_id="other", state={"who": "other"})
        await create(any_service, app_name="other", state={"who": "app"})
        assert (await get(any_service)).state == {"who": "user"}
        assert (await get(any_service, user_id="other")).state == {"who": "other"}
        assert (await get(any_service, app_name="other")).state == {"who": "app"}


class TestIds:
    @pytest.mark.parametrize("odd", ODD_IDS)
    async def test_any_string_is_a_valid_id(self, any_service: Service, odd: str) -> None:
        session_id = odd.strip() or "session"
        for app_name, user_id, name in (
            (odd, USER, SESSION),
            (APP, odd, SESSION),
            (APP, USER, session_id),
        ):
            owner = {"app_name": app_name, "user_id": user_id}
            session = await create(any_service, name, **owner, state={"user:a": 1, "app:b": 2})
            await any_service.append_event(session, event("hi", own=3))
            stored = await get(any_service, name, **owner)
            assert stored.state == {"user:a": 1, "app:b": 2, "own": 3}
            assert texts(stored) == ["hi"]
            listed = await any_service.list_sessions(**owner)
            assert [found.id for found in listed.sessions] == [name]
            await any_service.delete_session(**owner, session_id=name)
            assert not await exists(any_service, name, **owner)

    async def test_similar_ids_do_not_collide(self, any_service: Service) -> None:
        """Joined by a separator or used as a pattern, these ids would be equal."""
        names = [
            ("a", "b:c", "d"),
            ("a:b", "c", "d"),
            ("a", "b", "c:d"),
            ("a/b", "c", "d"),
            ("a", "b/c", "d"),
            ("a", "*", "d"),
            ("a", "b", "*"),
            ("*", "b", "d"),
            ("a", "", "bd"),
            ("", "a", "bd"),
            ("A", "b", "d"),
            ("a", "B", "d"),
            ("a%3Ab", "c", "d"),
            ("a", "b", "d" * 1_500),
            ("a", "b", "d" * 1_501),
        ]
        for name in names:
            app_name, user_id, session_id = name
            await any_service.create_session(
                app_name=app_name,
                user_id=user_id,
                session_id=session_id,
                state={"me": list(name), "user:me": list(name[:2]), "app:me": app_name},
            )
        for app_name, user_id, session_id in names:
            session = await get(any_service, session_id, app_name=app_name, user_id=user_id)
            assert session.state["me"] == [app_name, user_id, session_id]
            assert session.state["user:me"] == [app_name, user_id]
            assert session.state["app:me"] == app_name
        for app_name, user_id, session_id in names:
            await any_service.delete_session(
                app_name=app_name, user_id=user_id, session_id=session_id
            )
            left = names[names.index((app_name, user_id, session_id)) + 1 :]
            for app, user, other in left:
                assert await exists(any_service, other, app_name=app, user_id=user)


class TestGet:
    async def test_unknown_session_is_none(self, any_service: Service) -> None:
        assert not await exists(any_service)
        await create(any_service)
        assert not await exists(any_service, "other")
        assert not await exists(any_service, user_id="other")
        assert not await exists(any_service, app_name="other")
        assert not await exists(any_service, "")

    async def test_events_keep_their_order(self, any_service: Service) -> None:
        session = await create(any_service)
        for number, timestamp in enumerate([5.0, 5.0, 1.0, 9.0, 5.0]):
            await any_service.append_event(session, event(str(number), timestamp=timestamp))
        assert texts(await get(any_service)) == ["0", "1", "2", "3", "4"]
        assert texts(session) == ["0", "1", "2", "3", "4"]

    async def test_callers_get_independent_copies(self, any_service: Service) -> None:
        session = await create(any_service, state={"list": [1], "user:list": [1]})
        await any_service.append_event(session, event("as it was", own={"deep": [1]}))
        first = await get(any_service)
        content = first.events[0].content
        assert content is not None
        assert content.parts is not None
        content.parts[0].text = "changed"
        first.events[0].actions.state_delta["own"]["deep"].append(2)
        first.state["list"].append(2)
        first.state["user:list"].append(2)
        first.events.append(event("extra"))
        second = await get(any_service)
        assert texts(second) == ["as it was"]
        assert second.events[0].actions.state_delta == {"own": {"deep": [1]}}
        assert second.state == {"list": [1], "user:list": [1], "own": {"deep": [1]}}

    @pytest.mark.parametrize(
        ("count", "expected"),
        [(0, ""), (1, "4"), (2, "34"), (5, "01234"), (99, "01234"), (None, "01234")],
    )
    async def test_num_recent_events_returns_the_last_events(
        self, any_service: Service, count: int | None, expected: str
    ) -> None:
        await self._five(any_service)
        config = GetSessionConfig(num_recent_events=count)
        assert texts(await get(any_service, config=config)) == list(expected)

    @pytest.mark.parametrize(
        ("after", "expected"), [(0.0, "01234"), (3.0, "234"), (3.5, "34"), (5.0, "4"), (5.1, "")]
    )
    async def test_after_timestamp_is_inclusive(
        self, any_service: Service, after: float, expected: str
    ) -> None:
        await self._five(any_service)
        config = GetSessionConfig(after_timestamp=after)
        assert texts(await get(any_service, config=config)) == list(expected)

    @pytest.mark.parametrize(
        ("count", "after", "expected"),
        [(0, 0.0, ""), (2, 1.0, "34"), (4, 4.0, "34"), (3, 9.0, ""), (1, 5.0, "4")],
    )
    async def test_filters_combine(
        self, any_service: Service, count: int, after: float, expected: str
    ) -> None:
        await self._five(any_service)
        config = GetSessionConfig(num_recent_events=count, after_timestamp=after)
        assert texts(await get(any_service, config=config)) == list(expected)

    async def test_after_timestamp_stops_at_the_last_older_event(
        self, any_service: Service
    ) -> None:
        """ADK's in-memory service does the same. Its SQL services return event 0 and leave a gap."""
        session = await create(any_service)
        for number, timestamp in enumerate([8.0, 2.0, 7.0, 5.0, 5.0]):
            await any_service.append_event(session, event(str(number), timestamp=timestamp))
        config = GetSessionConfig(after_timestamp=5.0)
        assert texts(await get(any_service, config=config)) == ["2", "3", "4"]

    async def test_filters_do_not_affect_state(self, any_service: Service) -> None:
        await self._five(any_service)
        config = GetSessionConfig(num_recent_events=1)
        assert (await get(any_service, config=config)).state == {"last": 4}

    async def test_filtered_session_accepts_appends(self, any_service: Service) -> None:
        await self._five(any_service)
        session = await get(any_service, config=GetSessionConfig(num_recent_events=0))
        await any_service.append_event(session, event("5", timestamp=6.0))
        assert texts(await get(any_service)) == list("012345")

    def test_negative_number_of_events_is_refused(self) -> None:
        with pytest.raises(ValidationError):
            GetSessionConfig(num_recent_events=-1)

    @staticmethod
    async def _five(service: Service) -> None:
        session = await create(service)
        for number in range(5):
            await service.append_event(
                session, event(str(number), timestamp=number + 1.0, last=number)
            )


class TestAppend:
    async def test_append_updates_the_callers_session(self, any_service: Service) -> None:
        session = await create(any_service)
        said = event("hi", timestamp=7.5, own=1, user__name="Ada")
        assert await any_service.append_event(session, said) is said
        assert session.events == [said]
        assert session.state == {"own": 1, "user:name": "Ada"}
        assert session.last_update_time == 7.5
        assert (await get(any_service)).last_update_time == 7.5

    async def test_partial_events_are_not_stored(self, any_service: Service) -> None:
        session = await create(any_service)
        partial = event("hel", own=1)
        partial.partial = True
        assert await any_service.append_event(session, partial) is partial
        assert session.events == []
        assert session.state == {}
        stored = await get(any_service)
        assert stored.events == []
        assert stored.state == {}

    async def test_temporary_state_is_not_stored(self, any_service: Service) -> None:
        session = await create(any_service, state={"temp:first": 1, "kept": 1})
        assert session.state == {"kept": 1}
        await any_service.append_event(session, event("hi", temp__secret=1, own=2))
        assert session.state == {"kept": 1, "temp:secret": 1, "own": 2}
        stored = await get(any_service)
        assert stored.state == {"kept": 1, "own": 2}
        assert stored.events[0].actions.state_delta == {"own": 2}

    async def test_append_to_deleted_session_is_refused(self, any_service: Service) -> None:
        session = await create(any_service)
        await any_service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        with pytest.raises(SessionNotFoundError):
            await any_service.append_event(session, event("late", own=1))
        assert session.events == []
        assert session.state == {}
        assert not await exists(any_service)

    async def test_repeated_event_is_stored_once(self, any_service: Service) -> None:
        session = await create(any_service)
        first = event("first", count=1)
        await any_service.append_event(session, first)
        await any_service.append_event(session, first)
        await any_service.append_event(session, event("second", timestamp=2.0, count=2))
        await any_service.append_event(session, first.model_copy(deep=True))
        stored = await get(any_service)
        assert texts(stored) == texts(session) == ["first", "second"]
        assert stored.state == session.state == {"count": 2}

    async def test_event_repeated_through_an_older_copy_is_stored_once(
        self, any_service: Service
    ) -> None:
        session = await create(any_service)
        before = await get(any_service)
        first = event("first")
        await any_service.append_event(session, first)
        await any_service.append_event(session, event("second", timestamp=2.0))
        await any_service.append_event(before, first.model_copy(deep=True))
        assert texts(await get(any_service)) == ["first", "second"]

    async def test_different_events_with_the_same_id_are_stored(self, any_service: Service) -> None:
        session = await create(any_service)
        for text in ("first", "second"):
            said = event(text)
            said.id = "the same"
            await any_service.append_event(session, said)
        assert texts(await get(any_service)) == ["first", "second"]

    async def test_repeated_events_with_the_same_id_are_recognised(
        self, any_service: Service
    ) -> None:
        session = await create(any_service)
        said = [event(text) for text in ("first", "second", "third")]
        for each in said:
            each.id = "the same"
            await any_service.append_event(session, each)
        for copied in (session, await get(any_service)):
            for each in said:
                await any_service.append_event(copied, each.model_copy(deep=True))
        assert texts(session) == texts(await get(any_service)) == ["first", "second", "third"]

    async def test_empty_event_is_stored(self, any_service: Service) -> None:
        session = await create(any_service)
        await any_service.append_event(session, Event(author="agent"))
        stored = await get(any_service)
        assert stored.events == session.events

    async def test_session_parsed_from_json_accepts_appends(self, any_service: Service) -> None:
        session = await create(any_service)
        for text in ("first", "second"):
            await any_service.append_event(session, event(text))
        copied = Session.model_validate_json(session.model_dump_json(by_alias=True))
        await any_service.append_event(copied, event("third", timestamp=2.0, own=1, temp__t=1))
        assert texts(copied) == texts(await get(any_service)) == ["first", "second", "third"]
        assert copied.state == {"own": 1, "temp:t": 1}


class TestState:
    async def test_state_is_shared_within_its_scope(self, any_service: Service) -> None:
        session = await create(any_service, state={"own": 1, "user:name": "Ada", "app:motd": "hi"})
        await create(any_service, "second")
        await create(any_service, "third", user_id="other")
        await create(any_service, "fourth", app_name="other")
        await any_service.append_event(session, event(user__city="Turin", app__motd="yo", more=2))
        everything = {
            "own": 1,
            "more": 2,
            "user:name": "Ada",
            "user:city": "Turin",
            "app:motd": "yo",
        }
        assert (await get(any_service)).state == everything
        assert (await get(any_service, "second")).state == {
            "user:name": "Ada",
            "user:city": "Turin",
            "app:motd": "yo",
        }
        assert (await get(any_service, "third", user_id="other")).state == {"app:motd": "yo"}
        assert (await get(any_service, "fourth", app_name="other")).state == {}

    async def test_new_session_includes_user_and_app_state(self, any_service: Service) -> None:
        await create(any_service, state={"user:name": "Ada", "app:motd": "hi"})
        second = await create(any_service, "second", state={"user:name": "Grace"})
        assert second.state == {"user:name": "Grace", "app:motd": "hi"}
        assert (await get(any_service)).state == {"user:name": "Grace", "app:motd": "hi"}

    async def test_user_and_app_state_outlive_a_deleted_session(self, any_service: Service) -> None:
        await create(any_service, state={"own": 1, "user:name": "Ada", "app:motd": "hi"})
        await any_service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert (await create(any_service)).state == {"user:name": "Ada", "app:motd": "hi"}

    async def test_user_state_can_be_read_without_a_session(self, any_service: Service) -> None:
        assert await any_service.get_user_state(app_name=APP, user_id=USER) == {}
        session = await create(any_service, state={"user:name": "Ada", "app:x": 1, "own": 1})
        await any_service.append_event(session, event(user__name="Grace", user__n=None))
        state = await any_service.get_user_state(app_name=APP, user_id=USER)
        assert state == {"name": "Grace", "n": None}
        assert await any_service.get_user_state(app_name=APP, user_id="other") == {}
        assert await any_service.get_user_state(app_name="other", user_id=USER) == {}

    @pytest.mark.parametrize(
        "key",
        ["", "a.b", "$set", "a:b", "user", "app", "user:", "app:", "user:app:x", "x\x00y", "ключ"],
    )
    async def test_any_string_is_a_valid_state_key(self, any_service: Service, key: str) -> None:
        session = await create(any_service, state={key: 1})
        assert (await get(any_service)).state == {key: 1}
        changed = event()
        changed.actions.state_delta = {key: [2]}
        await any_service.append_event(session, changed)
        assert (await get(any_service)).state == {key: [2]}

    async def test_none_is_a_valid_value(self, any_service: Service) -> None:
        session = await create(any_service, state={"a": None})
        await any_service.append_event(session, event(b=None, user__c=None))
        assert (await get(any_service)).state == {"a": None, "b": None, "user:c": None}


class TestList:
    async def test_list_returns_only_the_users_sessions(self, any_service: Service) -> None:
        for number in range(3):
            await create(any_service, f"s{number}")
        await create(any_service, "theirs", user_id="other")
        await create(any_service, "elsewhere", app_name="other")
        listed = await any_service.list_sessions(app_name=APP, user_id=USER)
        assert sorted(session.id for session in listed.sessions) == ["s0", "s1", "s2"]

    async def test_list_without_a_user_returns_all_sessions_of_the_app(
        self, any_service: Service
    ) -> None:
        await create(any_service, "mine", state={"user:name": "Ada", "own": 1})
        await create(any_service, "theirs", user_id="other", state={"user:name": "Eve"})
        await create(any_service, "empty", user_id="")
        await create(any_service, "elsewhere", app_name="other")
        listed = await any_service.list_sessions(app_name=APP)
        assert {session.id: session.state for session in listed.sessions} == {
            "mine": {"user:name": "Ada", "own": 1},
            "theirs": {"user:name": "Eve"},
            "empty": {},
        }

    async def test_empty_user_id_is_a_user(self, any_service: Service) -> None:
        await create(any_service, "mine")
        await create(any_service, "empty", user_id="")
        listed = await any_service.list_sessions(app_name=APP, user_id="")
        assert [session.id for session in listed.sessions] == ["empty"]

    async def test_listed_sessions_have_state_but_no_events(self, any_service: Service) -> None:
        session = await create(any_service, state={"app:motd": "hi"})
        await any_service.append_event(session, event("hi", timestamp=3.0, own=1))
        (listed,) = (await any_service.list_sessions(app_name=APP, user_id=USER)).sessions
        assert listed.state == {"app:motd": "hi", "own": 1}
        assert listed.events == []
        assert listed.last_update_time == 3.0

    async def test_list_is_ordered_by_last_update(self, any_service: Service) -> None:
        sessions = {name: await create(any_service, name) for name in "abcd"}
        for name, timestamp in {"b": 4e9, "d": 2e9, "a": 3e9, "c": 2e9}.items():
            await any_service.append_event(sessions[name], event(timestamp=timestamp))
        listed = await any_service.list_sessions(app_name=APP, user_id=USER)
        assert [session.id for session in listed.sessions] == ["c", "d", "a", "b"]

    async def test_list_may_be_empty(self, any_service: Service) -> None:
        assert (await any_service.list_sessions(app_name=APP)).sessions == []
        assert (await any_service.list_sessions(app_name=APP, user_id=USER)).sessions == []

    async def test_listed_session_accepts_appends(self, any_service: Service) -> None:
        session = await create(any_service)
        await any_service.append_event(session, event("first"))
        (listed,) = (await any_service.list_sessions(app_name=APP, user_id=USER)).sessions
        await any_service.append_event(listed, event("second", timestamp=2.0))
        assert texts(await get(any_service)) == ["first", "second"]


class TestDelete:
    async def test_deleted_session_is_gone(self, any_service: Service) -> None:
        session = await create(any_service)
        await any_service.append_event(session, event())
        await create(any_service, "other")
        await any_service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        assert not await exists(any_service)
        listed = await any_service.list_sessions(app_name=APP, user_id=USER)
        assert [session.id for session in listed.sessions] == ["other"]

    async def test_delete_keeps_other_sessions(self, any_service: Service) -> None:
        for name in ("first", "second", "third"):
            session = await create(any_service, name)
            await any_service.append_event(session, event(name))
        await any_service.delete_session(app_name=APP, user_id=USER, session_id="second")
        for name in ("first", "third"):
            assert texts(await get(any_service, name)) == [name]

    async def test_deleting_an_unknown_session_does_nothing(self, any_service: Service) -> None:
        await any_service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        await create(any_service)
        await any_service.delete_session(app_name=APP, user_id="other", session_id=SESSION)
        await any_service.delete_session(app_name="other", user_id=USER, session_id=SESSION)
        assert await exists(any_service)

    async def test_deleted_id_can_be_reused(self, any_service: Service) -> None:
        session = await create(any_service, state={"old": 1})
        await any_service.append_event(session, event("old", own=1))
        await get(any_service)
        await any_service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
        session = await create(any_service, state={"new": 1})
        assert (await get(any_service)).events == []
        await any_service.append_event(session, event("new"))
        stored = await get(any_service)
        assert stored.state == {"new": 1}
        assert texts(stored) == ["new"]


async def test_flush_is_always_allowed(any_service: Service) -> None:
    await any_service.flush()
    await create(any_service)
    await any_service.flush()
    assert await exists(any_service)
