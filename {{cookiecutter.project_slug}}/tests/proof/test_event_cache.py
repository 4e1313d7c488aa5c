"""The cache of decoded events: its size is limited, and readers get copies."""

from collections.abc import Sequence

from google.adk.events.event import Event

from {{ cookiecutter.__package }}.sessions import event_cache
from {{ cookiecutter.__package }}.sessions.codec import encode_event
from {{ cookiecutter.__package }}.sessions.event_cache import (
    EventCache,
    EventLog,
    copies,
)
from {{ cookiecutter.__package }}.sessions.store import SessionKey

from ..sessions.support import event


def size_of(events: Sequence[Event]) -> int:
    """Return the encoded length of events in bytes."""
    return sum(len(encode_event(each, {})) for each in events)


def log_of(length: int) -> EventLog:
    """Return a log of small events."""
    log = EventLog("incarnation")
    events = [event(str(number)) for number in range(length)]
    log.extend(0, events, size_of(events))
    return log


def key(name: str) -> SessionKey:
    """Return a session key of `APP` and `USER`."""
    return SessionKey("app", "user", name)


def test_least_recently_used_log_is_evicted_first() -> None:
    log = log_of(3)
    cache = EventCache(2 * log.size)
    for name in ("first", "second"):
        cache.put(key(name), log_of(3))
    assert cache.get(key("first")) is not None
    cache.put(key("third"), log_of(3))
    assert cache.get(key("second")) is None
    assert cache.get(key("first")) is not None
    assert cache.size == 2 * log.size


def test_oversized_log_is_not_cached() -> None:
    cache = EventCache(log_of(3).size)
    cache.put(key("long"), log_of(4))
    assert cache.get(key("long")) is None
    assert cache.size == 0


def test_grown_log_is_counted_again() -> None:
    cache = EventCache(1 << 30)
    cache.put(key("a"), log_of(3))
    cache.put(key("a"), log_of(5))
    assert cache.size == log_of(5).size
    cache.drop(key("a"))
    cache.drop(key("a"))
    assert cache.size == 0


def test_log_accepts_only_the_next_events() -> None:
    log = log_of(3)
    known, size, new = log.events[1:], log.size, event("new")
    log.extend(1, [*known, new], 100)
    assert log.events[1:] == [*known, new]
    assert log.size == size + event_cache.EVENT_OVERHEAD + 200
    log.extend(1, [*known, new], 100)
    log.extend(8, [event("gap")], 100)
    assert len(log.events) == 4
    assert log.size == size + event_cache.EVENT_OVERHEAD + 200


async def test_copies_are_independent_of_the_cache() -> None:
    cached = log_of(5).events
    copied = await copies(cached)
    assert copied == cached
    for each in copied:
        each.author = "changed"
        each.actions.state_delta["x"] = 1
    assert {each.author for each in cached} == {"user"}
    assert cached[0].actions.state_delta == {}
