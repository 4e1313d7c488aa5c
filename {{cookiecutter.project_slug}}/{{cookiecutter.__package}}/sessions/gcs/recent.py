"""What a process has seen last. Losing it costs a request, and never more."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")

REMEMBERED = 2_000
"""How much is remembered of a kind."""


class Recent(Generic[T]):
    """Values under names; those that were put there last are kept."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> T | None:
        """Return what was put under the name."""
        return self._values.get(name)

    def put(self, name: str, value: T | None) -> None:
        """Remember a value, or forget it."""
        with self._lock:
            self._values.pop(name, None)
            if value is not None:
                self._values[name] = value
            if len(self._values) > REMEMBERED:
                self._values.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._values.clear()
