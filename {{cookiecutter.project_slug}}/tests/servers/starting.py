"""What test servers have in common: a free port, a wait until they answer, and an end with their parent.

Run as a program, this file is the parent of a server: it ends the server when its standard input ends.
The other end of that pipe is held by the process of the tests, and closes with it even if it is killed.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
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


@contextmanager
def run(
    command: Sequence[str],
    ask: Callable[[], object],
    failures: tuple[type[Exception], ...],
    log: Path,
    *,
    stop: int = signal.SIGTERM,
) -> Iterator[None]:
    """Run a server from the moment it answers until the block ends, or this process, however it ends.

    Args:
        command: the server and its arguments.
        ask: a question that the server answers when it is ready.
        failures: what `ask` raises before that.
        log: the file that gets what the server prints.
        stop: the signal that ends the server.
    """
    parent = [sys.executable, __file__, str(int(stop)), *command]
    with log.open("ab") as output:
        # In a session of its own: Ctrl-C and the end of a terminal are not for the server.
        server = subprocess.Popen(
            parent, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait(server, ask, failures, log.name)
        yield
    finally:
        if server.stdin is not None:
            server.stdin.close()
        server.wait()


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


def main(stop: int, command: Sequence[str]) -> None:
    """Run a server until it ends by itself or the standard input ends."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=lambda: os._exit(server.wait()), daemon=True).start()
    sys.stdin.buffer.read()
    server.send_signal(stop)
    server.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
