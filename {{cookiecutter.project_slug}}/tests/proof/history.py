"""Checks what several writers were told against what is stored."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from google.adk.sessions.session import Session


class Answer(Enum):
    """What a writer was told about an append."""

    ACCEPTED = auto()
    REFUSED = auto()
    """The copy was stale, or its session was gone."""
    NONE = auto()
    """The writer was killed, or the reply was lost: nobody knows, and either may be true."""


@dataclass(frozen=True)
class Attempt:
    """One append: the event, the revision at which the writer had read the session, the answer."""

    event_id: str
    incarnation: str
    revision: int
    answer: Answer = Answer.NONE

    def told(self, answer: Answer) -> "Attempt":
        """Return the attempt with its answer."""
        return replace(self, answer=answer)


def check(session: Session, incarnation: str, attempts: Iterable[Attempt]) -> Counter[Answer]:
    """Raise AssertionError unless a session is what its writers were told, and count the answers.

    - What was accepted is stored once, and right behind what its writer had read: so exactly one
      attempt wins each revision, and an event is never lost, doubled or moved.
    - What was refused is not stored.
    - What nobody knows about is stored once, or not at all.
    - The state is what the stored events made of it: no event without its state, no state without
      its event.
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
    unheard = places.keys() - {attempt.event_id for attempt in mine}
    assert not unheard, f"events that nobody wrote: {unheard}"
    state: dict[str, Any] = {}
    for event in session.events:
        state |= event.actions.state_delta
    shared = {name for name in session.state if name.startswith(("user:", "app:"))}
    of_others = {name: session.state[name] for name in shared - state.keys()}
    assert session.state == state | of_others, "the state is not what the events made of it"
    return Counter(attempt.answer for attempt in mine)
