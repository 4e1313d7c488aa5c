"""State that the sessions of a user or of an app share, in `gcs.py`: an object for each key."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ..store import ScopedState, SessionKey
from .bucket import Bucket, Gone, Item
from .log import View
from .names import Names, state_of, value_of
from .recent import Recent
from .records import Value

Values = Mapping[str, Value]


class Shared:
    """Reads and writes what users and apps have. Owners are what the names of all of theirs begin with."""

    def __init__(self, bucket: Bucket, names: Names) -> None:
        self.seen: Recent[Value] = Recent()
        self._bucket = bucket
        self._names = names

    def read(self, owner: str) -> Values:
        """Return what an owner has."""
        return self.decoded(self._bucket.find(state_of(owner)))

    def beside(self, call: Callable[[], Any], key: SessionKey) -> tuple[Any, Values, Values]:
        """Make a call, and read what app and user have at the same time."""
        app, user = self._names.owners(key)
        result, apps, users = self._bucket.together(
            call, partial(self.read, app), partial(self.read, user)
        )
        return result, apps, users

    def decoded(self, items: Sequence[Item]) -> Values:
        """Return the values that objects hold, by key."""
        small = [item for item in items if item.listed is not None]
        large = [partial(self._value, item) for item in items if item.listed is None]
        values = [*map(self._value, small), *self._bucket.together(*large)]
        return {value.key: value for value in values if value}

    def settle(
        self, view: View, app: Values | None = None, user: Values | None = None
    ) -> tuple[Values, Values]:
        """Write what events have brought whose writers have not come to it.

        Returns what app and user have then; without what they were seen to have, nothing.
        """
        key = view.head.key
        owners = self._names.owners(key)
        owed: dict[tuple[str, str], Value] = {}
        states = [(view.item, view.base.shared)]
        states += [(item, entry.state) for item, entry in view.tail.values()]
        for item, state in states:
            for owner, value in self.brought(key, item, state):
                other = owed.get((owner, value.key), value)
                owed[owner, value.key] = max(value, other, key=lambda each: each.stamp)
        if owed and (app is None or user is None):
            _, app, user = self.beside(lambda: None, key)
        scopes = dict(zip(owners, (app or {}, user or {}), strict=True))
        missing = [
            (owner, value)
            for (owner, name), value in owed.items()
            if name not in scopes[owner] or scopes[owner][name].stamp < value.stamp
        ]
        for (owner, _), value in zip(missing, self.write(missing), strict=True):
            scopes[owner] = {**scopes[owner], value.key: value}
        return scopes[owners[0]], scopes[owners[1]]

    def brought(
        self, key: SessionKey, item: Item, state: ScopedState
    ) -> Iterator[tuple[str, Value]]:
        """Yield what an object brings for the app and the user, stamped by that object."""
        stamp = item.time, item.generation, item.name
        for owner, values in zip(self._names.owners(key), (state.app, state.user), strict=True):
            for name, value in values.items():
                yield owner, Value(name, value, stamp)

    def write(self, values: Iterable[tuple[str, Value]]) -> Sequence[Value]:
        """Write values of owners, and return what is there then: those, or newer ones."""
        return self._bucket.together(
            *(partial(self._write, value_of(owner, value.key), value) for owner, value in values)
        )

    def _write(self, name: str, value: Value) -> Value:
        current = self.seen.get(name)
        for _ in self._bucket.patiently():
            if current and current.stamp >= value.stamp:
                return current
            generation = current.generation if current else 0
            if item := self._bucket.put(name, value.encode(), generation=generation):
                current = replace(value, generation=item.generation)
                self.seen.put(name, current)
            else:
                current = self._value(self._bucket.get(name))
        raise AssertionError

    def _value(self, item: Item | None) -> Value | None:
        """Return the value that an object holds, or its successor if it was replaced meanwhile."""
        for _ in self._bucket.patiently():
            if item is None:
                return None
            with suppress(Gone):
                value = self._bucket.read(item, partial(Value.decode, generation=item.generation))
                self.seen.put(item.name, value)
                return value
            item = self._bucket.get(item.name)
        raise AssertionError
