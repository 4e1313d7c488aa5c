"""The tests' Redis server ends with the process that started it, however that ends."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
import redis

from ..sessions.support import until

SERVE = """
import signal, sys, time
from pathlib import Path
from tests.servers import redis
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
with redis.serve(Path(sys.argv[1]), "redis") as uri:
    print(uri.rpartition(":")[2].partition("/")[0], flush=True)
    time.sleep(600)
"""

WAYS = {"killed": 9, "its terminal closed": 1, "interrupted": 2}
"""Ways to end the process, with their signals on POSIX."""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("way", WAYS)
async def test_server_ends_with_its_parent(tmp_path: Path, way: str) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVE, str(tmp_path)),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert parent.stdout is not None
    port = int(await parent.stdout.readline())
    os.killpg(parent.pid, WAYS[way])
    await parent.wait()

    def is_gone() -> bool:
        try:
            with redis.Redis(port=port) as client:
                client.ping()
        except redis.ConnectionError:
            return True
        return False

    await until(is_gone)
