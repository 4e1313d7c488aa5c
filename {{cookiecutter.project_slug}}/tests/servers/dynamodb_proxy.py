"""An HTTP proxy in front of DynamoDB. It records requests and can answer some of them itself.

It simulates what an emulator lacks: conflicts, throttling, missing permissions and lost replies.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

from aiohttp import ClientSession, web

from .dynamodb import options_of, with_options

Reply = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
"""Answers a request instead of DynamoDB, or with its help."""


class DynamoDBProxy:
    """A proxy in front of the server of a session URI. `run_proxy` creates it."""

    def __init__(self, uri: str, session: ClientSession) -> None:
        self.uri = uri
        """The session URI that leads through the proxy."""
        self.requests: list[tuple[str, dict[str, Any]]] = []
        """Operation and parameters of each request."""
        self._endpoint = options_of(uri)["endpoint_url"]
        self._session = session
        self._replies: list[tuple[str, Reply]] = []

    def answer_next(self, operation: str, *replies: Reply) -> None:
        """Answer the next requests of an operation with these answers, in this order."""
        self._replies += [(operation, reply) for reply in replies]

    def count(self) -> Counter[str]:
        """Return the number of calls of each operation since the last time."""
        counts = Counter(operation for operation, _ in self.requests)
        self.requests.clear()
        return counts

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        body = await request.read()
        self.requests.append((operation, json.loads(body)))
        for index, (wanted, reply) in enumerate(self._replies):
            if wanted == operation:
                del self._replies[index]
                return await reply(request, body)
        return await self.forward(request, body)

    async def forward(self, request: web.Request, body: bytes) -> web.Response:
        """Let DynamoDB answer."""
        names = ("X-Amz-Target", "Authorization", "X-Amz-Date", "Content-Type")
        headers = {name: request.headers[name] for name in names}
        content = BytesIO(body)
        async with self._session.post(self._endpoint, data=content, headers=headers) as reply:
            return web.Response(
                status=reply.status, body=await reply.read(), content_type=reply.content_type
            )

    async def lose_reply(self, request: web.Request, body: bytes) -> web.Response:
        """Forward the request to DynamoDB, and close the connection instead of replying."""
        await self.forward(request, body)
        assert request.transport is not None
        request.transport.close()
        return web.Response()


@asynccontextmanager
async def run_proxy(uri: str) -> AsyncIterator[DynamoDBProxy]:
    """Run a proxy on a free port."""
    async with ClientSession() as session:
        proxy = DynamoDBProxy(uri, session)
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/", proxy.serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        proxy.uri = with_options(uri, endpoint_url=endpoint)
        try:
            yield proxy
        finally:
            await runner.cleanup()


def error(code: str, *reasons: str, message: str = "no") -> Reply:
    """Return an error reply of DynamoDB. `reasons` are those of a cancelled transaction."""
    content: dict[str, Any] = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}"}
    content["message"] = message
    if reasons:
        content["CancellationReasons"] = [{"Code": reason} for reason in reasons]

    async def reply(request: web.Request, body: bytes) -> web.Response:
        return web.json_response(content, status=400)

    return reply


CONFLICT = error("TransactionCanceledException", "None", "TransactionConflict")
"""The reply of DynamoDB if another transaction is in progress."""
