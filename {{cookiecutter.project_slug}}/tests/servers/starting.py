"""What test servers have in common: a port that is free, and a wait until they answer."""

import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from random import SystemRandom

STARTS_WITHIN = 60.0

PORTS = range(10_000, 32_000)
"""Below those that systems give to outgoing connections, which come and go all the time."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens to."""
    for port in SystemRandom().sample(PORTS, 100):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("No port is free.")


def wait(
    server: "subprocess.Popen[bytes]",
    ask: Callable[[], object],
    failures: tuple[type[Exception], ...],
    log: str,
) -> None:
    """Ask again and again until the server does not fail to answer any more."""
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            ask()
        except failures:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The test server did not start; see {log}.") from None
            time.sleep(0.01)
        else:
            return
