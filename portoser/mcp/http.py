"""MCP over Streamable HTTP, for both eras of the protocol. The SDK does the work; this bounds its streams."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import DEFAULT_MAX_REQUEST_BODY_SIZE, TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portoser.catalog.caller import Caller
from portoser.identity.middleware import caller_of
from portoser.mcp.asking import LEFT
from portoser.mcp.bodies import BoundedBodies
from portoser.mcp.callers import acting_as, bind_session_owner
from portoser.mcp.credentials import OpenStreams
from portoser.mcp.sse import EXPIRY_GRACE_SECONDS

_LISTEN: Final = "subscriptions/listen"


class StreamableHttp:
    """The ASGI application behind `/mcp`.

    A stream that stands open, the `GET` of a session or a 2026-07-28 `subscriptions/listen`, ends with the
    token that opened it and when the server stops. Calls run to their end.
    """

    def __init__(
        self, server: Server[Any], *, open_streams: OpenStreams, expiry_grace: float = EXPIRY_GRACE_SECONDS
    ) -> None:
        self._server = server
        self._open_streams = open_streams
        self._expiry_grace = expiry_grace
        self._manager: StreamableHTTPSessionManager | None = None
        self._streams: set[anyio.CancelScope] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Any]:
        """Serve while entered. Yields what the server's lifespan gave."""
        manager = StreamableHTTPSessionManager(
            self._server,
            # The guard in front of the whole application checks Host and Origin.
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        async with self._server.lifespan(self._server) as state, manager.run():
            self._manager = manager
            try:
                yield state
            finally:
                self._manager = None
                self.drain()

    def drain(self) -> None:
        """End the open `GET` streams. Listening clients are told by the handler that serves them."""
        for stream in list(self._streams):
            stream.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        manager = self._manager
        if manager is None:
            await PlainTextResponse("The server is stopping; try again.", 503)(scope, receive, send)
            return
        caller = caller_of(scope)
        bind_session_owner(scope, caller)
        app = BoundedBodies(manager.handle_request, DEFAULT_MAX_REQUEST_BODY_SIZE)
        with acting_as(caller):
            if _stands_open(scope):
                await self._bounded(app, caller, scope, receive, send)
            else:
                scope[LEFT] = left = anyio.Event()
                try:
                    await _answered(app, scope, receive, _Once(send))
                finally:
                    left.set()

    async def _bounded(self, app: ASGIApp, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        started = finished = False

        async def watched(message: Message) -> None:
            nonlocal started, finished
            started = True
            finished = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        stream = anyio.CancelScope()
        if caller.expires_at is not None:
            stream.deadline = anyio.current_time() + max(0.0, caller.expires_at + self._expiry_grace - time.time())
        if scope["method"] == "GET":
            self._streams.add(stream)
        try:
            with stream, self._open_streams.ending(scope, caller, stream.cancel):
                await app(scope, receive, watched)
        finally:
            self._streams.discard(stream)
        if stream.cancelled_caught and started and not finished:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _answered(app: ASGIApp, scope: Scope, receive: Receive, send: "_Once") -> None:
    try:
        await app(scope, receive, send)
    except (anyio.ClosedResourceError, anyio.BrokenResourceError):
        # Its session ended meanwhile, which the SDK does not look for everywhere.
        if not send.started:
            await PlainTextResponse("The session has ended; open another.", 404)(scope, receive, send)


class _Once:
    """Sends one response. The SDK begins a second, of an error, where a session ends while it takes a notification
    that it has answered already.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self._finished = False

    async def __call__(self, message: Message) -> None:
        if self._finished:
            return
        self.started = True
        self._finished = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)


def _stands_open(scope: Scope) -> bool:
    return scope["method"] == "GET" or Headers(scope=scope).get("mcp-method") == _LISTEN
