"""A state machine that compares this project's service with ADK's `InMemorySessionService`.

Both get the same calls, with similar names, and everything visible is compared. Two services of this
project share the database: one with a cache and one without. They differ from memory on purpose:

- They refuse an append through a stale copy. Memory accepts it.
- They refuse an append through a copy of a session that was deleted and created again. Memory
  appends to the new session.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.sessions.in_memory_session_service import InMemorySessionService
from google.adk.sessions.session import Session
from google.genai import types
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, rule
from pydantic_core import PydanticSerializationError

from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from ..sessions.support import ODD_IDS

T = TypeVar("T")
Name = tuple[str, str, str]

JOINTS = [":", "/", "\x00", "%", "}:{"]
"""Likely separators of the parts of a key."""

TIMES = [1.0, 2.0, 2.0000000000000004, 1_700_000_000.123456]

keys = st.builds(
    "{}{}".format,
    st.sampled_from(["", "", "user:", "app:", "temp:"]),
    st.sampled_from(["a", "b", "", "a.b", "$set", "user:a", "x\x00y", "ключ"]),
)
values = st.none() | st.integers(-2, 2) | st.text(max_size=3) | st.binary(max_size=3)
states = st.dictionaries(keys, values | st.lists(values, max_size=2), max_size=4).map(
    lambda state: dict(sorted(state.items()))
)
filters = st.none() | st.builds(
    GetSessionConfig,
    num_recent_events=st.none() | st.integers(0, 3),
    after_timestamp=st.none() | st.sampled_from(TIMES),
)
events = st.builds(
    lambda id_, text, state, timestamp, partial: Event(
        id=id_ or Event.new_id(),
        author="user",
        invocation_id="invocation",
        timestamp=timestamp,
        partial=partial,
        content=types.Content(parts=[types.Part(text=text)]) if text else None,
        actions=EventActions(state_delta=state),
    ),
    st.sampled_from(["", "", "", "shared id"]),
    st.sampled_from(["", "hello", "more", "Ω 👩‍💻"]),
    states,
    st.sampled_from(TIMES),
    st.sampled_from([None, None, None, False, True]),
)


@dataclass
class World:
    """The state that all examples of a run share."""

    services: Sequence[PersistentSessionService]
    runner: asyncio.Runner
    now: float = field(default_factory=time.time)
    """The time on both sides."""
    examples: int = 0
    steps: Counter[str] = field(default_factory=Counter)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for a call of a service."""
        return self.runner.run(call)


@dataclass
class Copy:
    """A caller's session objects from both sides, and the revision at which they were read."""

    name: Name
    incarnation: int
    revision: int
    whole: bool
    """Whether it was read with all its events, and therefore recognises repeated ones."""
    ours: Session
    theirs: Session


class Oracle(RuleBasedStateMachine):
    """The state machine. `run_state_machine_as_test` creates it from a World."""

    copies = Bundle("copies")
    said = Bundle("said")

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.memory = InMemorySessionService()
        self.incarnations: Counter[Name] = Counter()
        self.world.examples += 1

    def teardown(self) -> None:
        """Compare everything, including sessions that no step has touched."""
        self._compare_everything()

    @initialize(
        target=copies,
        data=st.data(),
        joint=st.sampled_from(JOINTS),
        odd_user=st.sampled_from(ODD_IDS),
        odd_id=st.sampled_from(ODD_IDS).map(str.strip).filter(bool),
    )
    def begin(self, data: st.DataObject, joint: str, odd_user: str, odd_id: str) -> Any:
        """Choose names that are equal once they are joined, and create a session for each.

        The number of the example separates its apps from those of other examples.
        """
        self.apps = [f"{self.world.examples}", f"{self.world.examples}{joint}a"]
        self.users = ["a", f"a{joint}b", odd_user]
        self.ids = ["c", f"b{joint}c", odd_id]
        service = self._service(data, "create")
        pairs = [("a", f"b{joint}c"), (f"a{joint}b", "c")]
        names = [(app, *pair) for app in self.apps for pair in pairs]
        return multiple(*(self._create(service, name, {}) for name in names))

    # Steps.

    @rule(target=copies, data=st.data(), state=states, pad=st.sampled_from(["", " ", "\n"]))
    def create(self, data: st.DataObject, state: dict[str, Any], pad: str) -> Any:
        name, service = self._name(data), self._service(data, "create")
        return self._create(service, name, state, pad) or multiple()

    @rule(target=copies, data=st.data(), config=filters)
    def read(self, data: st.DataObject, config: GetSessionConfig | None) -> Any:
        name, service = self._name(data), self._service(data, "read")
        return self._get(name, service, config) or multiple()

    @rule(target=copies, data=st.data(), whole_app=st.booleans())
    def list_sessions(self, data: st.DataObject, whole_app: bool) -> Any:
        (app_name, user_id, _), service = self._name(data), self._service(data, "list")
        listed = self._list(service, app_name, None if whole_app else user_id)
        return multiple(*(self._copy(ours, theirs, whole=False) for ours, theirs in listed))

    @rule(data=st.data())
    def read_user_state(self, data: st.DataObject) -> None:
        (app_name, user_id, _), service = self._name(data), self._service(data, "user_state")
        self._user_state(service, app_name, user_id)

    @rule(target=said, data=st.data(), copy=copies, event=events)
    def append(self, data: st.DataObject, copy: Copy, event: Event) -> Any:
        return self._append(self._service(data, "append"), copy, event) or multiple()

    @rule(target=said, data=st.data(), news=st.lists(events, min_size=1, max_size=4))
    def converse(self, data: st.DataObject, news: list[Event]) -> Any:
        """Read the session and append some events through one copy, as an agent does."""
        name, service = self._name(data), self._service(data, "read")
        copy = self._get(name, service)
        if copy is None:
            return multiple()
        said = [self._append(self._service(data, "append"), copy, event) for event in news]
        return multiple(*filter(None, said))

    @rule(data=st.data(), copy=copies, event=said)
    def append_again(self, data: st.DataObject, copy: Copy, event: Event) -> None:
        """Append an event that is already stored in this session or another one."""
        self._append(self._service(data, "append again"), copy, event.model_copy(deep=True))

    @rule(data=st.data(), copy=copies, event=events)
    def append_through_json(self, data: st.DataObject, copy: Copy, event: Event) -> None:
        """Append through a copy that was parsed from JSON. It must end with the last stored event."""
        event.id, event.partial = Event.new_id(), None
        last = [stored.id for stored in self._memory_events(copy.name)[-1:]]
        stale = [read.id for read in copy.theirs.events[-1:]] != last
        try:
            received = [copy.theirs.model_dump_json(), copy.ours.model_dump_json()]
        except PydanticSerializationError:
            return  # the state has bytes, which ADK's own session cannot write as JSON
        theirs, ours = map(Session.model_validate_json, received)
        service = self._service(data, "append through JSON")
        self._append_to(service, copy.name, ours, theirs, event, stale=stale)

    @rule(data=st.data(), copy=consumes(copies))
    def delete(self, data: st.DataObject, copy: Copy) -> None:
        app_name, user_id, session_id = copy.name
        service = self._service(data, "delete")
        given = {"app_name": app_name, "user_id": user_id, "session_id": f" {session_id}"}
        self.world.run(self.memory.delete_session(**given))
        self.world.run(service.delete_session(**given))
        self._compare(copy.name)

    # Helpers of the steps.

    def _create(
        self, service: PersistentSessionService, name: Name, state: dict[str, Any], pad: str = ""
    ) -> Copy | None:
        given: dict[str, Any] = {"app_name": name[0], "user_id": name[1], "state": state}
        given["session_id"] = f"{pad}{name[2]}{pad}"
        theirs, refused = self._try(self.memory.create_session(**given))
        ours, problem = self._try(service.create_session(**given))
        assert type(problem) is type(refused)
        assert refused is None or isinstance(refused, AlreadyExistsError)
        self._compare(name)
        if ours is None or theirs is None:
            return None
        self.incarnations[name] += 1
        _same(ours, theirs)
        return Copy(name, self.incarnations[name], 0, True, ours, theirs)

    def _name(self, data: st.DataObject) -> Name:
        app_name, user_id, session_id = (
            data.draw(st.sampled_from(pool)) for pool in (self.apps, self.users, self.ids)
        )
        return app_name, user_id, session_id

    def _service(self, data: st.DataObject, step: str) -> PersistentSessionService:
        """Begin a step: advance the time and choose one of the services."""
        self.world.steps[step] += 1
        self.world.now += 0.001
        return data.draw(st.sampled_from(self.world.services))

    def _try(self, call: Coroutine[Any, Any, T]) -> tuple[T | None, Exception | None]:
        try:
            return self.world.run(call), None
        except (AlreadyExistsError, SessionNotFoundError, StaleSessionError) as error:
            return None, error

    def _memory_events(self, name: Name) -> list[Event]:
        app_name, user_id, session_id = name
        users = self.memory.sessions.get(app_name, {})
        stored = users.get(user_id, {}).get(session_id)
        return stored.events if stored else []

    def _append(self, service: PersistentSessionService, copy: Copy, event: Event) -> Event | None:
        stored = self._memory_events(copy.name)
        current = copy.incarnation == self.incarnations[copy.name]
        stale = not current or copy.revision != len(stored)
        seen = _lasting(event)
        at = next((at for at, old in enumerate(stored, 1) if old == seen), 0) if current else 0
        if 0 < at <= copy.revision and not copy.whole:
            return None  # a filtered copy does not recognise the events that it lacks
        return self._append_to(
            service, copy.name, copy.ours, copy.theirs, event, stale=stale, known_at=at, copy=copy
        )

    def _append_to(
        self,
        service: PersistentSessionService,
        name: Name,
        ours: Session,
        theirs: Session,
        event: Event,
        *,
        stale: bool,
        known_at: int = 0,
        copy: Copy | None = None,
    ) -> Event | None:
        mine = event.model_copy(deep=True)
        exists = name[2] in self.memory.sessions.get(name[0], {}).get(name[1], {})
        before = ours.model_copy(deep=True)
        result, problem = self._try(service.append_event(ours, mine))
        if event.partial:
            assert problem is None
            assert result is mine
        elif not exists:
            assert isinstance(problem, SessionNotFoundError)
        elif known_at:
            assert problem is None, "an event that is stored is recognised"
            assert copy is not None
            if known_at == copy.revision + 1:
                # Ours updates the copy as if the append had just succeeded.
                self.world.run(BaseSessionService.append_event(self.memory, theirs, event))
                theirs.last_update_time = event.timestamp
                copy.revision += 1
        elif stale:
            assert isinstance(problem, StaleSessionError)
        else:
            assert problem is None
            self.world.run(self.memory.append_event(theirs, event))
            assert mine == event
            if copy is not None:
                copy.revision += 1
        if problem is not None:
            assert ours == before, "a copy stays as it was when an append is refused"
        if copy is not None:
            _same(ours, theirs)
        self._compare(name)
        return None if problem or event.partial else event

    def _copy(self, ours: Session, theirs: Session, *, whole: bool) -> Copy:
        name = theirs.app_name, theirs.user_id, theirs.id
        revision = len(self._memory_events(name))
        return Copy(name, self.incarnations[name], revision, whole, ours, theirs)

    # Comparisons.

    def _get(
        self, name: Name, service: PersistentSessionService, config: GetSessionConfig | None = None
    ) -> Copy | None:
        given = {"app_name": name[0], "user_id": name[1], "session_id": name[2]}
        theirs = self.world.run(self.memory.get_session(**given, config=config))
        ours = self.world.run(service.get_session(**given, config=config))
        assert (ours is None) == (theirs is None)
        if ours is None or theirs is None:
            return None
        copy = self._copy(ours, theirs, whole=len(theirs.events) == len(self._memory_events(name)))
        assert ours.revision == copy.revision
        _same(ours, theirs)
        return copy

    def _list(
        self, service: PersistentSessionService, app_name: str, user_id: str | None
    ) -> list[tuple[Session, Session]]:
        theirs, ours = (
            self.world.run(side.list_sessions(app_name=app_name, user_id=user_id)).sessions
            for side in (self.memory, service)
        )
        assert [found.id for found in ours] == [found.id for found in theirs]
        pairs = list(zip(ours, theirs, strict=True))
        for pair in pairs:
            _same(*pair)
        return pairs

    def _user_state(self, service: PersistentSessionService, app_name: str, user_id: str) -> None:
        given = {"app_name": app_name, "user_id": user_id}
        theirs = self.world.run(self.memory.get_user_state(**given))
        assert self.world.run(service.get_user_state(**given)) == theirs

    def _compare(self, name: Name) -> None:
        """Compare a session in every service, once with a filter at the edge of the last event."""
        last = [event.timestamp for event in self._memory_events(name)[-1:]]
        edge = GetSessionConfig(after_timestamp=last[0]) if last else None
        for service, config in zip(self.world.services, (None, edge), strict=True):
            self._get(name, service, config)

    def _compare_everything(self) -> None:
        for service in self.world.services:
            for app_name in getattr(self, "apps", ()):
                self._list(service, app_name, None)
                for user_id in self.users:
                    self._list(service, app_name, user_id)
                    self._user_state(service, app_name, user_id)
                    for session_id in self.ids:
                        self._get((app_name, user_id, session_id), service)


def _lasting(event: Event) -> Event:
    """Return the event as it is stored: without `temp:` state."""
    event = event.model_copy(deep=True)
    delta = event.actions.state_delta
    event.actions.state_delta = {key: delta[key] for key in delta if not key.startswith("temp:")}
    return event


def _same(ours: Session, theirs: Session) -> None:
    """Compare all fields of ADK's Session."""
    for name in Session.model_fields:
        assert getattr(ours, name) == getattr(theirs, name), name
