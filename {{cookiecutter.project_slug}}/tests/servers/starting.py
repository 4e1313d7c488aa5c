"""Helpers to start test servers: a free port, a wait until they answer, an end with their parent.

As a program, this file is the parent of a server and ends it when its standard input ends. The process
of the tests holds the other end of that pipe, which closes even if that process is killed.
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
STOPS_WITHIN = 10.0

PORTS = range(10_000, 32_000)
"""Ports below those of outgoing connections, which come and go all the time."""


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    for port in SystemRandom().sample(PORTS, 100):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("No port is free.")


def knock(port: int) -> None:
    """Connect to a port of 127.0.0.1, which fails until a server listens."""
    socket.create_connection(("127.0.0.1", port), 1).close()


@contextmanager
def run(
    command: Sequence[str],
    ask: Callable[[], object],
    failures: tuple[type[Exception], ...],
    log: Path,
    *,
    stop: int = signal.SIGTERM,
) -> Iterator[None]:
    """Run a server, and wait until it answers. It ends with the block or with this process.

    Args:
        command: the server and its arguments.
        ask: a call that succeeds once the server is ready.
        failures: the exceptions that it raises before that.
        log: the file for the output of the server.
        stop: the signal that ends the server.
    """
    parent = [sys.executable, __file__, str(int(stop)), *command]
    with log.open("ab") as output:
        # A session of its own keeps Ctrl-C and the end of a terminal from the server.
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
    """Wait until the server answers without a failure."""
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
    """Run a server until it or the standard input ends."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=lambda: os._exit(server.wait()), daemon=True).start()
    sys.stdin.buffer.read()
    server.send_signal(stop)
    try:
        server.wait(STOPS_WITHIN)
    except subprocess.TimeoutExpired:  # it may wait for a broken connection
        server.kill()
        server.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
