"""Emulators behind a proxy, and servers with the same answer to every request."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from {{ cookiecutter.__package }}.sessions import create_session_service
from {{ cookiecutter.__package }}.sessions.config import SCHEME
from {{ cookiecutter.__package }}.sessions.service import PersistentSessionService

from . import gcs, proxy
from .proxy import Proxy


@asynccontextmanager
async def proxied(directory: Path) -> AsyncIterator[tuple[Proxy, PersistentSessionService, str]]:
    """Run an emulator, a proxy in front of it, and a service that goes through it.

    The third value is the session URI of the emulator itself.
    """
    with gcs.serve(directory, SCHEME, **gcs.FLEETING) as uri:
        async with (
            proxy.run(*proxy.address(uri)) as between,
            create_session_service(proxy.through(uri, between.port)) as service,
        ):
            yield between, service, uri


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[str]:
    """Run a server with the same answer to every request. The value is the URI of a bucket."""
    body = body or json.dumps({"error": {"code": status, "message": "because"}}).encode()

    class Answer(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as serving:
        Thread(target=serving.serve_forever, args=(0.01,)).start()
        try:
            yield f"{SCHEME}+http://127.0.0.1:{serving.server_port}/bucket?timeout=0.5"
        finally:
            serving.shutdown()
