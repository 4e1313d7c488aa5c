"""Redis: one Lua script, and ADK's `RedisSessionService`. Each has a database of its own on the server."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import Rival

REQUIREMENTS = ["google-adk[redis]"]

SCRIPT = """
local head = redis.call('HMGET', KEYS[1], 'mark', 'revision')
if head[1] ~= ARGV[1] then return redis.error_reply('stale') end
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('HSET', KEYS[1], 'revision', head[2] + 1, 'updated', ARGV[3])
redis.call('PEXPIRE', KEYS[1], 86400000)
redis.call('PEXPIRE', KEYS[2], 86400000)
return head[2] + 1
"""


class RedisFloor:
    """A list and a hash, and a script that knows them."""

    append_is = "one Lua script that checks, appends and slides the expiry"
    round_trip_is = "one HGETALL"

    def __init__(self, url: str) -> None:
        """Connect to the server with redis-py."""
        from redis import asyncio as redis

        self.client = redis.Redis.from_url(url)
        self.sha = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

    async def version(self) -> str:
        info = await self.client.info("server")
        name = info.get("server_name", "redis").capitalize()
        return f"{name} {info.get('valkey_version', info['redis_version'])}"

    async def put(self, session: str, records: Sequence[bytes]) -> None:
        await self.client.hset(session, mapping={"mark": "m", "revision": len(records)})
        for start in range(0, len(records), 1000):
            await self.client.rpush(f"{session}:events", *records[start : start + 1000])

    async def append(self, session: str, record: bytes) -> None:
        await self.client.evalsha(self.sha, 2, session, f"{session}:events", "m", record, 1.0)

    async def round_trip(self, session: str) -> None:
        await self.client.hgetall(session)

    async def read(self, session: str, last: int) -> Sequence[bytes]:
        records: list[bytes] = await self.client.lrange(f"{session}:events", -last, -1)
        return records

    async def stored_bytes(self) -> int:
        info = await self.client.info("memory")
        return int(info["used_memory_dataset"])

    async def close(self) -> None:
        await self.client.aclose()


def url(uri: str, database: int) -> str:
    """Return the address that redis-py understands."""
    return urlsplit(uri)._replace(scheme="redis", path=f"/{database}", query="").geturl()


async def open_floor(uri: str, folder: Path) -> RedisFloor:
    """Use database 2."""
    floor = RedisFloor(url(uri, 2))
    await floor.client.script_load(SCRIPT)
    return floor


async def open_rivals(uri: str, folder: Path) -> list[Rival]:
    """Give ADK's service database 1, so that its scans meet no keys but its own."""
    from google.adk.integrations.redis import RedisSessionService, RedisSessionServiceConfig

    service = RedisSessionService(RedisSessionServiceConfig(uri=url(uri, 1)))

    async def fill(session: Any, events: Sequence[Any]) -> None:
        config = service.config
        key = f"{config.key_prefix}{session.app_name}:{session.user_id}:{session.id}"
        stored = session.model_copy(update={"events": list(events)})
        floor = RedisFloor(url(uri, 1))
        await floor.client.set(key, stored.model_dump_json(), ex=config.ttl_seconds)
        await floor.close()

    return [Rival("RedisSessionService", service, fill)]
