"""`serve`: ADK's API server, as production needs it.

It is the application of ADK's `get_fast_api_app`. Added are worker processes, `/ready`, a shutdown that
fails no request, and a status and a sentence where the session store refuses a request or fails.
"""

import asyncio
import inspect
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import click
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import JSONResponse
from google.adk.cli.fast_api import get_fast_api_app
from google.adk.errors import StaleSessionError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import register
from .errors import RefusedValue, SessionStoreError, StoreUnavailable, TurnTimeout
from .factory import opened_for_adk
from .service import PersistentSessionService

logger = logging.getLogger(__name__)

READY_TIMEOUT = 2.0
"""Seconds within which the store must answer `/ready`."""
READY_CACHE = 1.0
"""Seconds for which an answer of `/ready` is used again, so that probes are no load for the store."""
RETRY_AFTER = "2"
"""Seconds after which a client should try again if the store did not answer."""

_WORKER_OPTIONS = "SESSION_SERVER_OPTIONS"
"""The environment variable that hands the options over to worker processes."""
_WORKER_FAILED = 3
"""The exit status that tells uvicorn not to start a worker again."""
_LEFT_OUT = {"host", "port", "reload_agents", "avatar_config", "trace_to_cloud", "eval_storage_uri"}
"""Options of `api_server` that are ours, or that serve development."""


def serve_command(api_server: click.Command) -> click.Command:
    """Return the command `serve`, with those options of ADK's `api_server` that make sense for it."""
    known = inspect.signature(get_fast_api_app).parameters.keys() | {"with_ui", "log_level"}
    own = [
        click.Option(["--host"], envvar="HOST", default="127.0.0.1", show_default=True),
        click.Option(["--port"], envvar="PORT", type=int, default=8000, show_default=True),
        click.Option(
            ["--workers"],
            type=click.IntRange(1),
            envvar="WEB_CONCURRENCY",
            default=1,
            show_default=True,
            help="Processes that answer requests.",
        ),
        click.Option(
            ["--shutdown_timeout"],
            type=click.IntRange(0),
            default=30,
            show_default=True,
            help="Seconds that running turns may take to finish after SIGTERM.",
        ),
        click.Option(
            ["--drain"],
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Seconds between SIGTERM and the shutdown, in which /ready says 503.",
        ),
    ]
    adopted = [p for p in api_server.params if p.name in known and p.name not in _LEFT_OUT]
    return click.Command("serve", params=[*own, *adopted], callback=serve, help=serve.__doc__)


def serve(*, host: str, port: int, workers: int, shutdown_timeout: int, **options: Any) -> None:
    """Serve the agent in production: the API of `api_server`, `/health` and `/ready`.

    The API has no login of its own. Put it behind something that has.
    """
    options |= {
        "bind_host": host,
        "port": port,
        "web": options.pop("with_ui"),
    }
    for name in ("trigger_sources", "trigger_oidc_service_accounts"):
        if texts := options.get(name):
            options[name] = [text.strip() for text in texts.split(",")]
    if workers > 1:
        os.environ[_WORKER_OPTIONS] = json.dumps(options)
    uvicorn.run(
        create_app(options) if workers == 1 else f"{__name__}:{create_worker_app.__name__}",
        factory=workers > 1,
        workers=workers,
        host=host,
        port=port,
        timeout_graceful_shutdown=shutdown_timeout,
        log_level=options["log_level"].lower(),
    )


def create_worker_app() -> FastAPI:
    """Return the application of a worker process, with the options that its parent was given."""
    try:
        return create_app(json.loads(os.environ[_WORKER_OPTIONS]))
    except click.ClickException as error:
        error.show()
        sys.exit(_WORKER_FAILED)


def create_app(options: Mapping[str, Any]) -> FastAPI:
    """Return ADK's application with `/ready` and with answers for errors of the store.

    Args:
        options: those of `get_fast_api_app`, `log_level` and `drain`.

    Raises:
        ClickException: the session store cannot be used. The message says why.
    """
    options = dict(options)
    level, drain = options.pop("log_level", "INFO").upper(), options.pop("drain", 0)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("google_adk").setLevel(level)
    for handler in logging.getLogger().handlers:
        handler.addFilter(leave_out_traceback)
    register()
    services: list[PersistentSessionService] = []
    readiness = Readiness(services)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if drain:
            readiness.drain(drain)
        yield
        for service in services:
            await service.close()

    known = set(opened_for_adk)
    app = get_fast_api_app(**options, lifespan=lifespan)
    services += set(opened_for_adk) - known
    app.add_middleware(AnyPath)
    app.add_middleware(AnswerCancelled)
    app.add_middleware(CloseWhileDraining, readiness=readiness)
    app.add_api_route("/ready", readiness.answer, methods=["GET"])
    for kind in (StaleSessionError, RuntimeError, ValueError, HTTPException):
        app.add_exception_handler(kind, answer_error)
    return app


class AnyPath:
    """Lets ids in a path have any letters.

    If only one agent is served, ADK encodes the path as Latin-1 to replace `raw_path`, and fails for other
    letters. Without `raw_path`, which ASGI makes optional, it does not.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.pop("raw_path", None)
        await self._app(scope, receive, send)


class CloseWhileDraining:
    """Ends each connection after its answer, once the server drains.

    A balancer of connections, such as a Service of Kubernetes, never moves an open one. Its client would
    send the next request to a server that may have ended.
    """

    def __init__(self, app: ASGIApp, readiness: "Readiness") -> None:
        self._app = app
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and self._readiness.draining:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, answer)


class AnswerCancelled:
    """Answers a request that took longer than `--shutdown_timeout`. uvicorn cancels it and would log a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if scope["type"] != "http" or not task or not task.cancelling():
                raise
            logger.warning("%s %s was cancelled by the shutdown.", scope["method"], scope["path"])
            if not begun:
                detail = "The server ended before the answer: reload the session and send the message again."
                response = JSONResponse({"detail": detail}, 503, {"Retry-After": RETRY_AFTER})
                await response(scope, receive, send)


class Readiness:
    """Whether requests can be served: the session store answers, and the server does not end."""

    def __init__(self, services: Sequence[PersistentSessionService]) -> None:
        self._services = services
        self._lock = asyncio.Lock()
        self._checked_at = float("-inf")
        self._problem: str | None = None
        self.draining = False

    def drain(self, seconds: float) -> None:
        """Let SIGTERM make this unready first, and end the server some seconds later.

        A proxy in front of the server needs this time to see it, and sends requests until then.
        """
        end = cast("Callable[[int, None], None]", signal.getsignal(signal.SIGTERM))

        def begin(*_: object) -> None:
            if not self.draining:
                self.draining = True
                threading.Timer(seconds, end, (signal.SIGTERM, None)).start()

        signal.signal(signal.SIGTERM, begin)

    async def answer(self) -> JSONResponse:
        """Return 200, or 503 with the part that is not ready. The log says why."""
        if self.draining:
            return JSONResponse({"ready": False, "server": "draining"}, 503)
        async with self._lock:
            if time.monotonic() - self._checked_at > READY_CACHE:
                problem = await self._check()
                if problem and not self._problem:
                    logger.error("Not ready: %s", problem)
                self._problem, self._checked_at = problem, time.monotonic()
        ready = self._problem is None
        body = {"ready": ready, "sessions": "ok" if ready else "unavailable"}
        return JSONResponse(body, 200 if ready else 503)

    async def _check(self) -> str | None:
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                for service in self._services:
                    await service.check()
        except TimeoutError:
            return f"the session store did not answer within {READY_TIMEOUT:g} s"
        except SessionStoreError as error:
            return str(error)
        return None


async def answer_error(request: Request, error: Exception) -> Response:
    """Return the status and the sentence of an error of the store. All others are raised again."""
    found = find_error(error)
    if found is None:
        if isinstance(error, HTTPException):
            return await http_exception_handler(request, error)
        raise error
    logger.warning("%s %s: %s", request.method, request.url.path, found)
    if isinstance(found, StaleSessionError):
        detail = "The conversation went on elsewhere: reload it and send the message again."
        return JSONResponse({"detail": detail}, 409)
    if isinstance(found, SessionNotFoundError):
        detail = "Session not found: it was deleted, or it has expired."
        return JSONResponse({"detail": detail}, 404)
    if isinstance(found, RefusedValue):
        return JSONResponse({"detail": str(found)}, 422)
    if isinstance(found, TurnTimeout):
        return JSONResponse({"detail": str(found)}, 503, {"Retry-After": RETRY_AFTER})
    if isinstance(found, StoreUnavailable):  # its text names the database, which is not for clients
        detail = "The sessions cannot be reached at the moment: try again."
        return JSONResponse({"detail": detail}, 503, {"Retry-After": RETRY_AFTER})
    return JSONResponse({"detail": "The session cannot be read; the log says why."}, 500)


def find_error(error: BaseException | None) -> Exception | None:
    """Return the error of the store that an error is, or was raised from: ADK wraps some."""
    while error is not None:
        if isinstance(error, (StaleSessionError, SessionNotFoundError, SessionStoreError)):
            return error
        error = error.__cause__
    return None


def leave_out_traceback(record: logging.LogRecord) -> bool:
    """Remove the traceback of an error of the store from the log. The message has the reason."""
    if record.exc_info and find_error(record.exc_info[1]):
        record.exc_info = None
    return True
