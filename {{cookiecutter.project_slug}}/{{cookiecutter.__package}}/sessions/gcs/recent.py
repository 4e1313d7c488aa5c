"""What a process has seen last. Losing it costs a request, and never more."""

from typing import TypeVar

T = TypeVar("T")

REMEMBERED = 2_000


class Recent(dict[str, T]):
    """Values by name. All are dropped when there are too many: that takes no lock and no order."""

    def __setitem__(self, name: str, value: T) -> None:
        if len(self) >= REMEMBERED:
            self.clear()
        super().__setitem__(name, value)
