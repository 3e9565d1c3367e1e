"""MCP over HTTP with SSE: a stream to the client, and a path that it posts its messages to.

This transport belongs to the handshake era of the protocol (until 2025-11-25), and only that era is served
on it: a client that asks for 2026-07-28 is told that the method is unknown and falls back to
`initialize`, after which it hears of changes without asking. The SDK's serving loop does the protocol;
the framing is ours, because a session must end with its token, must be known by its id, and must end in
order when the server stops.
"""

import secrets
import time
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs, quote

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup
from mcp.server.lowlevel.server import Server
from mcp.server.runner import serve_loop
from mcp.server.transport_security import DEFAULT_MAX_REQUEST_BODY_SIZE, RequestBodyLimitMiddleware
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp_types import JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from portoser.catalog.caller import Caller
from portoser.identity.middleware import caller_of
from portoser.mcp.bodies import too_much
from portoser.mcp.callers import acting_as, same_principal
from portoser.mcp.credentials import OpenStreams
from portoser.mcp.streams import Inbox, Outbox, endpoint_event

log = structlog.get_logger(__name__)

PING_SECONDS: Final = 15.0
"""How often an idle stream is written to, so that proxies do not close it."""

EXPIRY_GRACE_SECONDS: Final = 30.0
"""How long a stream outlives its token: time for a client to come back with a new one."""

MAX_SESSIONS: Final = 10_000

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"connection", b"keep-alive"),
    (b"x-accel-buffering", b"no"),
]


class _Session:
    def __init__(self, caller: Caller) -> None:
        self.id = secrets.token_hex(16)
        self.caller = caller
        self.inbox = Inbox()
        self.scope = anyio.CancelScope()
        self.outbox = Outbox(on_stall=self._stalled)

    def _stalled(self, unread: int) -> None:
        log.warning("mcp.client_stalled", subject=self.caller.subject, unread_bytes=unread)
        self.scope.cancel()


class SseSessions:
    """The open sessions. `stream` and `messages` are the ASGI applications that clients speak to."""

    def __init__(
        self,
        server: Server[Any],
        *,
        messages_path: str,
        open_streams: OpenStreams,
        max_sessions: int = MAX_SESSIONS,
        max_body: int = DEFAULT_MAX_REQUEST_BODY_SIZE,
        ping_seconds: float = PING_SECONDS,
        expiry_grace: float = EXPIRY_GRACE_SECONDS,
    ) -> None:
        self._server = server
        self._messages_path = messages_path
        self._open_streams = open_streams
        self._max_sessions = max_sessions
        self._ping_seconds = ping_seconds
        self._expiry_grace = expiry_grace
        self._sessions: dict[str, _Session] = {}
        self._lifespan_state: Any = None
        self._accepting = False
        self.stream = _Endpoint(self._stream, "GET")
        self.messages = _Endpoint(RequestBodyLimitMiddleware(self._message, max_body), "POST")

    def __len__(self) -> int:
        return len(self._sessions)

    def start(self, lifespan_state: Any) -> None:
        """Take sessions from now on. ``lifespan_state`` is what the server's lifespan gave."""
        self._lifespan_state = lifespan_state
        self._accepting = True

    def drain(self) -> None:
        """Take no new sessions, and end the open ones in order: running calls are cancelled and answered."""
        self._accepting = False
        for session in list(self._sessions.values()):
            session.inbox.end()

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._accepting or len(self._sessions) >= self._max_sessions:
            await PlainTextResponse("Too many open sessions; try again later.", 503)(scope, receive, send)
            return
        caller = caller_of(scope)
        session = _Session(caller)
        self._sessions[session.id] = session
        path = quote(scope.get("root_path", "").rstrip("/") + self._messages_path)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await _write(send, endpoint_event(f"{path}?session_id={session.id}"))
            with acting_as(caller), session.scope, self._open_streams.ending(scope, caller, session.inbox.end):
                await self._run(session, receive, send)
        finally:
            del self._sessions[session.id]
            session.outbox.stop_reading()
            with anyio.move_on_after(1, shield=True):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _run(self, session: _Session, receive: Receive, send: Send) -> None:
        """Serve the session until the client leaves, its token ends, or the server stops."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._serve, session)
            tasks.start_soon(_cancel_on_disconnect, receive, tasks)
            if session.caller.expires_at is not None:
                tasks.start_soon(self._expire, session, session.caller.expires_at)
            try:
                while True:
                    events = b""
                    with anyio.move_on_after(self._ping_seconds):
                        events = await session.outbox.events()
                    await _write(send, events or b": ping\r\n\r\n")
            except anyio.EndOfStream:
                tasks.cancel_scope.cancel()

    async def _serve(self, session: _Session) -> None:
        try:
            await serve_loop(
                self._server,
                session.inbox,
                session.outbox,
                lifespan_state=self._lifespan_state,
                session_id=session.id,
            )
        except Exception:
            # One session's failure must not reach the others through the ASGI server.
            log.exception("mcp.session_failed", subject=session.caller.subject)
            await session.outbox.aclose()

    async def _expire(self, session: _Session, expires_at: float) -> None:
        await anyio.sleep(max(0.0, expires_at + self._expiry_grace - time.time()))
        log.info("mcp.session_expired", subject=session.caller.subject)
        session.inbox.end()

    async def _message(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        caller = caller_of(scope)
        session_id = parse_qs(scope["query_string"].decode("latin-1")).get("session_id", [""])[0]
        session = self._sessions.get(session_id)
        if session is None or not same_principal(caller, session.caller):
            # Somebody else's session looks as if there were none.
            await PlainTextResponse("There is no such session; open the stream again.", 404)(scope, receive, send)
            return
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            await PlainTextResponse("A message is application/json.", 415)(scope, receive, send)
            return
        body = await request.body()
        refusal = too_much(body)
        if refusal is not None:
            await self._refuse(session, refusal, scope, receive, send)
            return
        try:
            message = jsonrpc_message_adapter.validate_json(body, by_name=False)
        except ValidationError:
            await PlainTextResponse("The body is not a JSON-RPC message.", 400)(scope, receive, send)
            return
        # Each message is decided by the credential that came with it; the stream's URL chose the narrowing.
        caller = msgspec.structs.replace(caller, only_groups=session.caller.only_groups)
        with acting_as(caller):
            try:
                await session.inbox.send(SessionMessage(message, ServerMessageMetadata(request_context=request)))
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                await PlainTextResponse("The session has ended; open the stream again.", 404)(scope, receive, send)
                return
        await PlainTextResponse("Accepted", 202)(scope, receive, send)

    async def _refuse(
        self, session: _Session, refusal: JSONRPCError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer where clients wait for answers: on the stream."""
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            await session.outbox.send(SessionMessage(refusal))
        await PlainTextResponse("Accepted", 202)(scope, receive, send)


class _Endpoint:
    """An ASGI application that answers one method. A class, because Starlette takes functions for handlers."""

    def __init__(self, app: Any, method: str) -> None:
        self._app = app
        self._method = method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != self._method:
            refusal = PlainTextResponse("Method Not Allowed", 405, headers={"Allow": self._method})
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _write(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _cancel_on_disconnect(receive: Receive, tasks: TaskGroup) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    tasks.cancel_scope.cancel()
