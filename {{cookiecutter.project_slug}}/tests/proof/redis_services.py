"""Services on Redis, also for a project that stores only copies there."""

from {{ cookiecutter.__package }}.sessions.redis.store import RedisStore
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService
from {{ cookiecutter.__package }}.sessions.uri import parse_uri


def open_service(uri: str, *, ttl: int = 0, **options: object) -> PersistentSessionService:
    """Return a service for a URI of the scheme `redis`."""
    parsed = parse_uri(uri, scheme="redis", schemes=("redis",), options=options)
    return PersistentSessionService(RedisStore.from_uri(parsed), ttl=ttl)
