"""HAProxy in front of several servers of the agent, as a load balancer in production.

One of its ports distributes requests, as an Ingress does. The other one distributes connections, as a
Service of Kubernetes does.

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
    timeout connect 5s
    timeout client 5m
    timeout server 5m
    timeout check 1m
    option redispatch 1
"""

# A database that is slow for two seconds, as emulators are, makes all servers unready at once. That is not what
# these tests are about.
LISTEN = """\
listen {mode}
    mode {mode}
    bind 127.0.0.1:{port}
    option httpchk GET /ready
    http-check expect ! string draining
    default-server check inter 200ms rise 1 fall 3
{servers}
"""


@contextmanager
def balance(directory: Path, ports: Sequence[int]) -> Iterator[list[str]]:
    """Run HAProxy in front of servers on these ports of 127.0.0.1.

    The value is its addresses: the first distributes requests, the second one connections.
    """
    program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise RuntimeError("HAProxy is not installed: `apt install haproxy`.")
    servers = "\n".join(f"    server s{each} 127.0.0.1:{each}" for each in ports)
    balancers = {"http": free_port(), "tcp": free_port()}
    sections = (
        LISTEN.format(mode=mode, port=port, servers=servers) for mode, port in balancers.items()
    )
    configuration = directory / "haproxy.cfg"
    configuration.write_text(CONFIGURATION + "".join(sections))
    addresses = [f"http://127.0.0.1:{port}" for port in balancers.values()]
    ask = build_opener(ProxyHandler({})).open
    command = [program, "-f", str(configuration)]
    with run(command, lambda: ask(f"{addresses[1]}/health"), (OSError,), directory / "haproxy.log"):
        yield addresses
