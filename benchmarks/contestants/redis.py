"""Redis: ADK's `RedisSessionService`, in a database of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from . import Rival

REQUIREMENTS = ["google-adk[redis]"]


def url(uri: str, database: int) -> str:
    """Return the address that redis-py understands."""
    return urlsplit(uri)._replace(scheme="redis", path=f"/{database}", query="").geturl()


def client(uri: str, database: int = 0) -> Any:
    """Return a client of the server."""
    from redis import asyncio as redis

    return redis.Redis.from_url(url(uri, database))


async def version(uri: str) -> str:
    """Return the name and version of the server."""
    async with client(uri) as server:
        info = await server.info("server")
    name = info.get("server_name", "redis").capitalize()
    return f"{name} {info.get('valkey_version', info['redis_version'])}"


async def stored_bytes(uri: str) -> int:
    """Return what the data takes in the server's memory."""
    async with client(uri) as server:
        info = await server.info("memory")
    return int(info["used_memory_dataset"])


async def open_own(uri: str) -> Rival:
    """Use database 1, so that scans meet no keys but its own."""
    from google.adk.integrations.redis import RedisSessionService, RedisSessionServiceConfig

    service = RedisSessionService(RedisSessionServiceConfig(uri=url(uri, 1)))

    async def fill(session: Any, events: Sequence[Any]) -> None:
        config = service.config
        key = f"{config.key_prefix}{session.app_name}:{session.user_id}:{session.id}"
        stored = session.model_copy(update={"events": list(events)})
        async with client(uri, 1) as server:
            await server.set(key, stored.model_dump_json(), ex=config.ttl_seconds)

    return service, fill


RIVALS = {"RedisSessionService": open_own}
