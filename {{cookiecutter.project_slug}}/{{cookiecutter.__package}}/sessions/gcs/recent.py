"""A cache of values that a process has seen last. A lost value costs a request."""

from typing import TypeVar

T = TypeVar("T")

REMEMBERED = 2_000


class Recent(dict[str, T]):
    """Values by name. If there are too many, all are dropped, which needs neither a lock nor an order."""

    def __setitem__(self, name: str, value: T) -> None:
        if len(self) >= REMEMBERED:
            self.clear()
        super().__setitem__(name, value)
