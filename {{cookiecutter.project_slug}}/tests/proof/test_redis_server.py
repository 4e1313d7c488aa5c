"""The tests' own server: it ends with the process that started it, however that ends."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from ..sessions.support import until

SERVE = """
import sys, time
from pathlib import Path
from tests.servers import redis
with redis.serve(Path(sys.argv[1]), "redis") as uri:
    print(uri.rpartition(":")[2].partition("/")[0], flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("way", ["killed", "its terminal closed", "interrupted"])
def test_server_ends_with_its_parent(tmp_path: Path, way: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        sent = {
            "killed": signal.SIGKILL,
            "its terminal closed": signal.SIGHUP,
            "interrupted": signal.SIGINT,
        }
        os.killpg(parent.pid, sent[way])

    def is_gone() -> bool:
        try:
            with redis.Redis(port=port) as client:
                client.ping()
        except redis.ConnectionError:
            return True
        return False

    asyncio.run(until(is_gone))
