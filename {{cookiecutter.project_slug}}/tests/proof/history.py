"""Checks the answers that several writers got against the stored session."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from google.adk.sessions.session import Session


class Answer(Enum):
    """The answer to an append."""

    ACCEPTED = auto()
    REFUSED = auto()
    """The copy was stale, or the session was gone."""
    NONE = auto()
    """The outcome is unknown: the writer was killed, or the reply was lost."""


@dataclass(frozen=True)
class Attempt:
    """An append: the event, the incarnation and revision of the writer's copy, and the answer."""

    event_id: str
    incarnation: str
    revision: int
    answer: Answer = Answer.NONE

    def told(self, answer: Answer) -> "Attempt":
        """Return the attempt with this answer."""
        return replace(self, answer=answer)


def check(session: Session, incarnation: str, attempts: Iterable[Attempt]) -> Counter[Answer]:
    """Check a session against its writers' attempts and return the number of each answer.

    AssertionError is raised unless all of this is true:

    - An accepted event is stored once, directly after the events that its writer had read.
    - A refused event is not stored.
    - An event with an unknown outcome is stored once or not at all.
    - The state is the result of the stored events.
    """
    mine = [attempt for attempt in attempts if attempt.incarnation == incarnation]
    places: dict[str, list[int]] = {}
    for place, event in enumerate(session.events):
        places.setdefault(event.id, []).append(place)
    for attempt in mine:
        stored = places.get(attempt.event_id, [])
        if attempt.answer is Answer.ACCEPTED:
            assert stored == [attempt.revision], f"accepted, and stored at {stored}: {attempt}"
        elif attempt.answer is Answer.REFUSED:
            assert stored == [], f"refused, and stored at {stored}: {attempt}"
        else:
            assert stored in ([], [attempt.revision]), f"unknown, and stored at {stored}: {attempt}"
    unknown = places.keys() - {attempt.event_id for attempt in mine}
    assert not unknown, f"events without an attempt: {unknown}"
    state: dict[str, Any] = {}
    for event in session.events:
        state |= event.actions.state_delta
    shared = {name for name in session.state if name.startswith(("user:", "app:"))}
    of_others = {name: session.state[name] for name in shared - state.keys()}
    assert session.state == state | of_others, "the state is not what the events made of it"
    return Counter(attempt.answer for attempt in mine)
