"""The memory of decoded events: bounded, and shared without one reader seeing another's changes."""

import copy
import pickle

import pytest
from google.adk.events.event import Event

from {{ cookiecutter.__package }}.sessions import warm
from {{ cookiecutter.__package }}.sessions.codec import encode_event
from {{ cookiecutter.__package }}.sessions.decoding import Decoded
from {{ cookiecutter.__package }}.sessions.events import Events
from {{ cookiecutter.__package }}.sessions.store import SessionKey
from {{ cookiecutter.__package }}.sessions.warm import EventLog, WarmLogs

from .support import event


def log_of(length: int) -> EventLog:
    """Return a log of some small events."""
    log = EventLog("mark")
    log.extend(0, decoded(*(event(str(number)) for number in range(length))))
    return log


def decoded(*events: Event) -> Decoded:
    """Return events as they come from a store."""
    part = Decoded()
    for each in events:
        part.add(each, len(encode_event(each, {})))
    return part


def key(name: str) -> SessionKey:
    """Return a key of the usual app and user."""
    return SessionKey("app", "user", name)


class TestWarmLogs:
    def test_the_least_recently_used_goes_first(self) -> None:
        log = log_of(3)
        logs = WarmLogs(2 * log.size)
        for name in ("first", "second"):
            logs.put(key(name), log_of(3))
        assert logs.get(key("first")) is not None
        logs.put(key("third"), log_of(3))
        assert logs.get(key("second")) is None
        assert logs.get(key("first")) is not None
        assert logs.size == 2 * log.size

    def test_a_log_that_does_not_fit_is_not_kept(self) -> None:
        logs = WarmLogs(log_of(3).size)
        logs.put(key("long"), log_of(4))
        assert logs.get(key("long")) is None
        assert logs.size == 0

    def test_a_log_that_grew_is_counted_anew(self) -> None:
        logs = WarmLogs(1 << 30)
        logs.put(key("a"), log_of(3))
        logs.put(key("a"), log_of(5))
        assert logs.size == log_of(5).size
        logs.drop(key("a"))
        logs.drop(key("a"))
        assert logs.size == 0

    def test_a_log_takes_only_what_continues_it(self) -> None:
        log = log_of(3)
        known, size = log.events[1:], log.size
        part = decoded(*known, new := event("new"))
        log.extend(1, part)
        assert log.events[1:] == [*known, new]
        assert log.revisions == {each.id: at for at, each in enumerate(log.events, 1)}
        assert log.size == size + warm.EVENT_OVERHEAD + 2 * part.sizes[-1]
        log.extend(8, decoded(event("gap")))
        assert log.revision == 4

    def test_of_events_that_share_an_id_the_first_is_known(self) -> None:
        twins = [event("one"), event("other")]
        twins[1].id = twins[0].id
        log = EventLog("mark")
        log.extend(0, decoded(*twins))
        log.extend(2, decoded(*twins))
        assert log.revisions == {twins[0].id: 1}


@pytest.fixture
def shared() -> list[Event]:
    """Events that belong to all readers."""
    return [event(str(number)) for number in range(5)]


@pytest.fixture
def mine(shared: list[Event]) -> Events:
    """One reader's view of them."""
    return Events(shared)


class TestEvents:
    """A list like any other, whose events nobody else sees change."""

    def test_it_equals_the_list_that_it_was_made_from(
        self, shared: list[Event], mine: Events
    ) -> None:
        assert mine == shared
        assert list(mine) == shared
        assert mine[1:3] == shared[1:3]
        assert mine[-1] == shared[-1]
        assert len(mine) == 5
        assert shared[2] in mine
        assert mine.index(shared[3]) == 3
        assert list(reversed(mine)) == shared[::-1]

    def test_an_event_taken_out_is_always_the_same_and_never_the_shared_one(
        self, shared: list[Event], mine: Events
    ) -> None:
        for own in (mine[0], next(iter(mine)), mine[:1][0], mine[-5]):
            assert own is mine[0]
            assert own is not shared[0]

    def test_changes_stay_with_their_reader(self, shared: list[Event], mine: Events) -> None:
        for item in mine:
            item.author = "changed"
        mine[0].actions.state_delta["x"] = 1
        assert {item.author for item in shared} == {"user"}
        assert shared[0].actions.state_delta == {}

    def test_it_can_be_changed_like_a_list(self, shared: list[Event], mine: Events) -> None:
        new = event("new")
        plain = list(shared)
        for items in (mine, plain):
            items.append(new)
            items.insert(1, new)
            items.pop(0)
            items.remove(new)
            items += [new]
            items.extend([new])
            items.reverse()
            items.sort(key=lambda item: item.content.parts[0].text)  # type: ignore[union-attr, index, arg-type, return-value]
            items[0] = new
            del items[1]
            items *= 2
            assert items.__add__([new]) == [*items, new]
        assert mine == plain
        assert mine[-1] is new
        own, others = set(map(id, mine)), set(map(id, shared))
        assert not own & others
        mine.clear()
        assert list(mine) == []

    def test_what_is_appended_is_kept_as_it_is(self, mine: Events) -> None:
        new = event("new")
        mine.append(new)
        assert mine[5] is new
        assert mine[-1] is new
        assert list(mine)[5] is new

    def test_places_that_are_not_there_are_an_error(self, mine: Events) -> None:
        for place in (5, -6):
            with pytest.raises(IndexError):
                mine[place]

    def test_copies_share_nothing(self, shared: list[Event], mine: Events) -> None:
        for copied in (copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):  # noqa: S301
            assert copied == shared
            assert not set(map(id, copied)) & set(map(id, shared))
        for copied in (copy.copy(mine), mine.copy()):
            assert [id(item) for item in copied] == [id(item) for item in mine]

    def test_appending_while_iterating_is_seen(self, mine: Events) -> None:
        seen = 0
        for _ in mine:
            seen += 1
            if seen == 1:
                mine.append(event("late"))
        assert seen == 6
