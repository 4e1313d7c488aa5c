"""State of an app or a user, with an object for each key.

An event has the values that it sets, and its writer then writes them key by key. Each value is stamped with the
time at which the service stored the event, and never replaces a value with a later stamp. So a write can be
repeated: if a writer was killed, the next reader of its event completes it.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from ..errors import CorruptSession
from ..store import ScopedState, SessionKey
from .bucket import Bucket, Item
from .errors import Gone
from .log import SessionView
from .names import Names, state_of, value_of
from .recent import Recent
from .records import SharedValue, encode

Scopes = dict[str, dict[str, SharedValue]]
"""The state of owners: values by key, by folder of the app or user."""

logger = logging.getLogger(__name__)


class SharedState:
    """Reads and writes the state of apps and users."""

    def __init__(self, bucket: Bucket, names: Names) -> None:
        self.seen: Recent[tuple[int, SharedValue]] = Recent()
        """Generations and values by object name."""
        self._bucket = bucket
        self._names = names

    async def read(self, *owners: str) -> Scopes:
        """Return the state of owners. A damaged value is logged and omitted."""
        return dict(zip(owners, await asyncio.gather(*map(self.read_one, owners)), strict=True))

    async def read_one(
        self, owner: str, listed: Sequence[Item] | None = None
    ) -> dict[str, SharedValue]:
        """Return the state of one owner, whose objects may already be listed."""
        began = time.monotonic()
        while True:
            try:
                items = await self._bucket.find(state_of(owner)) if listed is None else listed
                values = await asyncio.gather(*map(self._value, items))
                return {value.key: value for value in values if value}
            except Gone:  # a value was replaced after it was listed
                listed = None
            await self._bucket.pause(began)

    async def settle(self, view: SessionView, scopes: Scopes | None = None) -> None:
        """Write the values that events of a session set, unless their writers have done so.

        `scopes` is updated. Without it, the state is read if it is needed.
        """
        owed = self._owed(view)
        if not owed:
            return
        if scopes is None:
            scopes = await self.read(*self._names.owners(view.head.key))
        missing = [
            (owner, value)
            for (owner, key), value in owed.items()
            if key not in scopes[owner] or scopes[owner][key].stamp < value.stamp
        ]
        for (owner, _), value in zip(missing, await self.write(missing), strict=True):
            scopes[owner][value.key] = value

    def set_by(
        self, key: SessionKey, item: Item, state: ScopedState
    ) -> Iterator[tuple[str, SharedValue]]:
        """Yield the values that an object of a session sets for its owners, with the stamp of the object."""
        stamp = item.time, item.generation, item.name
        app, user = self._names.owners(key)
        for name, value in state.app.items():
            yield app, SharedValue(name, value, stamp)
        for name, value in state.user.items():
            yield user, SharedValue(name, value, stamp, key.user_id)

    async def write(self, values: Iterable[tuple[str, SharedValue]]) -> Sequence[SharedValue]:
        """Write values of owners, and return the resulting values: these, or later ones."""
        return await asyncio.gather(*(self._write(value_of(o, v.key), v) for o, v in values))

    async def replace(self, owner: str, old: Mapping[str, bytes], new: Mapping[str, bytes]) -> None:
        """Replace values of an owner that are still the old ones. They keep their stamps."""
        for key, value in old.items():
            name = value_of(owner, key)
            with suppress(Gone):
                generation, current = await self._current(name)
                if current and current.value == value:
                    renewed = SharedValue(key, new[key], current.stamp)
                    await self._bucket.put(name, encode(renewed), generation=generation)

    def _owed(self, view: SessionView) -> dict[tuple[str, str], SharedValue]:
        """Return the last value of each key of each owner that a session has set."""
        setters = [(view.item, view.checkpoint.shared)]
        setters += [(item, record.state) for item, record in view.tail.values()]
        owed: dict[tuple[str, str], SharedValue] = {}
        for item, state in setters:
            for owner, value in self.set_by(view.head.key, item, state):
                other = owed.get((owner, value.key), value)
                owed[owner, value.key] = max(value, other, key=lambda each: each.stamp)
        return owed

    async def _write(self, name: str, value: SharedValue) -> SharedValue:
        generation, current = self.seen.get(name, (0, None))
        began = time.monotonic()
        while current is None or current.stamp < value.stamp:
            if item := await self._bucket.put(name, encode(value), generation=generation):
                generation, current = item.generation, value
                continue
            await self._bucket.pause(began)
            with suppress(Gone):
                generation, current = await self._current(name)
        self.seen[name] = generation, current
        return current

    async def _current(self, name: str) -> tuple[int, SharedValue | None]:
        item = await self._bucket.get(name)
        return (item.generation, await self._value(item)) if item else (0, None)

    async def _value(self, item: Item) -> SharedValue | None:
        """Return the value of an object and cache it, or return None if it is damaged."""
        try:
            value = await self._bucket.read(item, SharedValue.decode)
        except CorruptSession as error:
            logger.error("A value of shared state is left out: %s", error)
            return None
        self.seen[item.name] = item.generation, value
        return value
