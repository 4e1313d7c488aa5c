"""HAProxy in front of several servers of the agent, as a load balancer in production.

Debian and Ubuntu: `apt install haproxy`.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from ..servers.starting import free_port, run

CONFIGURATION = """\
defaults
    mode http
    timeout connect 5s
    timeout client 5m
    timeout server 5m
    timeout check 5s
    option redispatch 1
frontend people
    bind 127.0.0.1:{port}
    default_backend agents
backend agents
    option httpchk GET /ready
    default-server check inter 100ms rise 1 fall 1
{servers}
"""


@contextmanager
def balance(directory: Path, ports: Sequence[int]) -> Iterator[str]:
    """Run HAProxy in front of servers on these ports of 127.0.0.1. The value is its address."""
    program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise RuntimeError("HAProxy is not installed: `apt install haproxy`.")
    port = free_port()
    servers = "\n".join(f"    server s{each} 127.0.0.1:{each}" for each in ports)
    configuration = directory / "haproxy.cfg"
    configuration.write_text(CONFIGURATION.format(port=port, servers=servers))
    address = f"http://127.0.0.1:{port}"
    ask = build_opener(ProxyHandler({})).open
    command = [program, "-f", str(configuration)]
    with run(command, lambda: ask(f"{address}/health"), (OSError,), directory / "haproxy.log"):
        yield address
