"""The events of a Session: decoded once for everybody, copied for whoever looks at one.

Stored events never change, so one decoded copy of a log serves all reads of this process (`warm.py`).
A caller may change what it was given, though, and must not change what another gets. Copying a whole
history at every turn would cost more than reading it did; so each event is copied when it is taken out.
"""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex, overload

from google.adk.events.event import Event


class Events(list[Event]):
    """A list of events that copies each shared one the first time somebody takes it out.

    Whatever only reads (length, comparison, serialization) sees the shared event itself. The first
    operation that moves events to other places copies all the rest, which keeps the rule simple:
    the events up to `_shared` that are not in `_copied` belong to others.
    """

    __slots__ = ("_copied", "_shared")

    def __init__(self, shared: Iterable[Event] = (), count: int | None = None) -> None:
        super().__init__(shared)
        if count is not None:  # others may have added to what is shared
            super().__delitem__(slice(count, None))
        self._shared = len(self)
        self._copied: set[int] = set()

    def _own(self, index: int) -> Event:
        event = super().__getitem__(index)
        if index < self._shared and index not in self._copied:
            event = copy.deepcopy(event)
            super().__setitem__(index, event)
            self._copied.add(index)
        return event

    def _own_all(self) -> None:
        for index in range(self._shared):
            self._own(index)
        self._shared = 0
        self._copied.clear()

    @overload
    def __getitem__(self, index: SupportsIndex) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._own(place) for place in range(*index.indices(len(self)))]
        place = index.__index__()
        if not -len(self) <= place < len(self):
            raise IndexError("list index out of range")
        return self._own(place % len(self))

    def __iter__(self) -> Iterator[Event]:
        # By place, as the iterator of a list goes: it sees what is appended meanwhile.
        place = 0
        while place < len(self):
            yield self._own(place)
            place += 1

    def __reversed__(self) -> Iterator[Event]:
        for place in range(len(self) - 1, -1, -1):
            if place < len(self):
                yield self._own(place)

    def __copy__(self) -> list[Event]:
        return list(self)

    copy = __copy__

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Event]:
        return [copy.deepcopy(event, memo) for event in super().__iter__()]

    def __reduce__(self) -> Any:
        return list, (list(self),)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return self.__reduce__()

    def __add__(self, other: Any) -> Any:
        return list(self) + other

    def __mul__(self, times: SupportsIndex) -> list[Event]:
        return list(self) * times

    __rmul__ = __mul__

    def __setitem__(self, index: Any, value: Any) -> None:
        self._own_all()
        super().__setitem__(index, value)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        self._own_all()
        super().__delitem__(index)

    def __imul__(self, times: SupportsIndex) -> "Events":
        self._own_all()
        super().__imul__(times)
        return self

    def insert(self, index: SupportsIndex, event: Event, /) -> None:
        self._own_all()
        super().insert(index, event)

    def pop(self, index: SupportsIndex = -1, /) -> Event:
        self._own_all()
        return super().pop(index)

    def remove(self, event: Event, /) -> None:
        self._own_all()
        super().remove(event)

    def clear(self) -> None:
        super().clear()
        self._shared = 0

    def reverse(self) -> None:
        self._own_all()
        super().reverse()

    def sort(self, **kwargs: Any) -> None:
        self._own_all()
        super().sort(**kwargs)
