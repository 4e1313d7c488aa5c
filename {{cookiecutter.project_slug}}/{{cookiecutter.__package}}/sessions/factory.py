"""Builds the session service of a URI, for callers and for ADK's registry."""

import asyncio
import math
import os
import threading
from typing import Any, cast, get_args
from weakref import WeakSet

from . import config
from .environment import PROJECT, load_environment
from .errors import ConfigurationError, SessionStoreError
from .keys import session_keys
from .service import PersistentSessionService
from .store import SessionStore
from .telemetry import TracedStore
from .ttl import format_ttl, parse_ttl
from .turns import Mode, TurnQueue
from .uri import not_negative, parse_uri, positive, whole_number

URI_VARIABLE = "SESSION_SERVICE_URI"

DEFAULT_CACHE_MB = 128.0
"""Memory for decoded events of recently used sessions: about 20,000 typical events."""

DEFAULT_TURN_LEASE = 15.0
"""Seconds after which the turn of a killed process ends."""

DEFAULT_TURN_WAIT = 60.0
"""Seconds that a message waits for earlier ones."""

opened_for_adk: "WeakSet[PersistentSessionService]" = WeakSet()
"""The services that ADK's registry was given, for the server to check and to close."""


def session_uri(uri: str | None = None) -> str:
    """Return the given URI, or that of the environment or `.env`, or of the server of `make dev`, or the default.

    A blank URI counts as not given.
    """
    if uri:
        return uri
    load_environment()
    if given := os.environ.get(URI_VARIABLE):
        return given
    started = PROJECT / ".data" / "server.uri"  # exists while `make dev` runs its own server
    return started.read_text("utf-8") if started.is_file() else config.DEFAULT_URI


def build_service(uri: str | None = None, **options: Any) -> PersistentSessionService:
    """Build the service of a URI. See `create_session_service`.

    `agents_dir`, which ADK passes, is ignored.
    """
    options.pop("agents_dir", None)
    parsed = parse_uri(
        session_uri(uri), scheme=config.SCHEME, schemes=config.SCHEMES, options=options
    )
    ttl = parsed.options.take("ttl", parse_ttl, parse_ttl(config.DEFAULT_TTL))
    turns: Mode = parsed.options.take("turns", turn_mode, "on")
    lease = parsed.options.take("turn_lease", positive, DEFAULT_TURN_LEASE)
    wait = parsed.options.take("turn_wait", not_negative, DEFAULT_TURN_WAIT)
    recent = parsed.options.take("recent_events", whole_number, 0)
    cache_mb = parsed.options.take("cache_mb", not_negative, DEFAULT_CACHE_MB)
    encryption = parsed.options.take("encryption", encryption_mode, "optional")
    try:
        store: SessionStore = TracedStore(config.open_store(parsed), config.DB_SYSTEM)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == __package__.partition(".")[0]:
            raise  # a module of this project is missing, not a package
        raise ConfigurationError(
            f"{config.BACKEND_TITLE} needs the Python package {error.name!r}, which is not installed:"
            " run `uv sync` in the project."
        ) from None
    parsed.options.finish()
    details = ""
    if keys := session_keys():
        from .encryption import EncryptedStore

        store = EncryptedStore(store, keys, required=encryption == "required")
        details = f", encrypted with key {keys[0]}"
    elif encryption == "required":
        raise ConfigurationError(
            "The session URI has encryption=required, and SESSION_KEYS is not set."
        )
    lives = f"sessions expire after {format_ttl(ttl)}" if ttl else "sessions never expire"
    return PersistentSessionService(
        store,
        ttl=ttl,
        turns=TurnQueue(store, mode=turns, lease=math.ceil(lease), wait=wait),
        recent_events=recent or None,
        cache_bytes=int(cache_mb * (1 << 20)),
        description=f"{parsed.scheme} → {config.BACKEND_TITLE} at {store.location}, {lives}{details}",
    )


def turn_mode(text: str) -> Mode:
    """Convert the option `turns`."""
    for mode in get_args(Mode):
        if text == mode:
            return cast(Mode, mode)
    raise ValueError(f"write one of {', '.join(get_args(Mode))}")


def encryption_mode(text: str) -> str:
    """Convert the option `encryption`."""
    if text not in ("optional", "required"):
        raise ValueError("write optional or required")
    return text


def register_schemes() -> None:
    """Register all schemes with ADK."""
    from google.adk.cli.service_registry import get_service_registry

    registry = get_service_registry()
    for scheme in config.SCHEMES:
        registry.register_session_service(scheme, open_for_adk)


def open_for_adk(uri: str, **options: Any) -> PersistentSessionService:
    """Build the service for ADK's command line, check it, and print its description.

    Errors are `ClickException`s, because ADK would show a traceback for others.
    """
    import click

    try:
        service = build_service(uri, **options)
        _run_apart(uri, options)
    except SessionStoreError as error:
        raise click.ClickException(str(error)) from error
    opened_for_adk.add(service)
    click.echo(f"Sessions: {service}", err=True)
    return service


def _run_apart(uri: str, options: dict[str, Any]) -> None:
    """Check the database in a thread with its own event loop and service.

    ADK calls factories inside a running loop (`adk run`) and outside one (`adk web`), and connections of one
    loop cannot be used on another.
    """
    problem: list[BaseException] = []

    async def check() -> None:
        async with build_service(uri, **options) as service:
            await service.check()

    def run() -> None:
        try:
            asyncio.run(check())
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=run, name="session-store-check")
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
