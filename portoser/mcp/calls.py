"""`tools/call`: a message becomes an invocation, and its outcome becomes a message again."""

from collections import deque
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final, Protocol

import anyio
import msgspec
from mcp.server.connection import Connection, allowed_log_levels
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    EmptyResult,
    LoggingMessageNotification,
    RequestId,
    SetLevelRequestParams,
)
from starlette.requests import Request

from portoser.audit.entry import Outcome
from portoser.catalog.caller import Caller
from portoser.invocation import CallResult, Invocation
from portoser.mcp.asking import asks_of, wire_questions
from portoser.mcp.callers import current_caller

ACCESS_REASONS: Final = frozenset({"unknown_tool", "group_disabled", "client_not_allowed", "narrowed", "forbidden"})
"""Why a call was refused before it was one; to a client these are errors of the request, not of the tool."""

STATE_REASONS: Final = frozenset({"invalid_state", "expired_state", "spent_state", "invalid_answer"})
"""Why the answers to a tool's questions were refused; these are errors of the request, too."""

_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_LEVEL_KEY: Final = "portoser.log_level"
_MAX_WAITING: Final = 256
_FLUSH_SECONDS: Final = 5.0


class Spawn(Protocol):
    """Starts a task that the server owns and ends with itself."""

    def __call__(self, task: Callable[[], Coroutine[Any, Any, None]], /) -> None:
        """Start it now."""


class Calls:
    """Answers `tools/call` and `logging/setLevel`."""

    def __init__(self, invocation: Invocation, spawn: Spawn) -> None:
        self._invocation = invocation
        self._spawn = spawn

    async def call_tool(self, ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> dict[str, Any]:
        """Run the tool for the caller and answer with its result, in wire form.

        A result that is an error goes to the model, as a result; a tool that the caller cannot call at
        all is an error of the request.

        Raises:
            MCPError: there is no such tool, as far as the caller may know, or the caller may not call it.
        """
        events = CallEvents(ctx.session, ctx.request_id, levels=_wanted_levels(ctx), spawn=self._spawn)
        try:
            result = await self._invocation.invoke(
                params.name,
                params.arguments or {},
                _calling(ctx, current_caller()),
                events=events,
                asks=asks_of(ctx, params),
            )
            await events.flush()
        finally:
            events.close()
        return wire_result(result)

    async def set_level(self, ctx: ServerRequestContext[Any, Any], params: SetLevelRequestParams) -> EmptyResult:
        """Remember, for this session, from which level on its client wants to read what tools log."""
        connection_of(ctx).state[_LEVEL_KEY] = params.level
        return EmptyResult()


class CallEvents:
    """What a running tool says meanwhile, on its way to the caller.

    Logs and progress come from synchronous code that must not wait, and go to a client that may be
    slow: they queue, in order, and are sent by a task that is only started when there is something to
    send. The queue is short. Progress that was not sent yet gives way to newer progress; logs beyond the
    queue are left out, and the client is told how many.
    """

    def __init__(
        self, session: ServerSession, request_id: RequestId | None, *, levels: Collection[str], spawn: Spawn
    ) -> None:
        self._session = session
        self._request_id = request_id
        self._levels = levels
        self._spawn = spawn
        self._waiting: deque[_Log | _Progress] = deque()
        self._left_out = 0
        self._sending: anyio.Event | None = None
        self._closed = False

    def log(self, level: str, message: str, data: dict[str, Any] | None) -> None:
        """The tool logged; dropped where the client did not ask for that level."""
        level = level if level in _LEVELS else "info"
        if level not in self._levels:
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._left_out += 1
            return
        self._put(_Log(level, message if not data else {"message": message, **data}))

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        """The tool reported progress; the SDK drops it where the client gave no token for it."""
        if self._waiting and isinstance(self._waiting[-1], _Progress):
            self._waiting.pop()
        self._put(_Progress(done, total, message))

    async def flush(self) -> None:
        """Wait until all of it is sent, so that nothing follows the result; not for long."""
        if self._left_out:
            self._put(_Log("warning", f"{self._left_out} more log messages were left out: they came too fast."))
        if self._sending is not None:
            with anyio.move_on_after(_FLUSH_SECONDS):
                await self._sending.wait()

    def close(self) -> None:
        """Send nothing more."""
        self._closed = True
        self._waiting.clear()

    def _put(self, event: "_Log | _Progress") -> None:
        if self._closed:
            return
        self._waiting.append(event)
        if self._sending is None or self._sending.is_set():
            self._sending = anyio.Event()
            self._spawn(self._send_all)

    async def _send_all(self) -> None:
        sending = self._sending
        try:
            while self._waiting:
                await self._send(self._waiting.popleft())
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            self.close()  # the client left; the transport ends the call where the protocol says so
        finally:
            if sending is not None:
                sending.set()

    async def _send(self, event: "_Log | _Progress") -> None:
        if isinstance(event, _Progress):
            await self._session.report_progress(event.done, event.total, event.message)
            return
        notification = LoggingMessageNotification.model_validate(
            {"method": "notifications/message", "params": {"level": event.level, "data": event.data}}
        )
        await self._session.send_notification(notification, related_request_id=self._request_id)


class _Log(msgspec.Struct, frozen=True):
    level: str
    data: Any


class _Progress(msgspec.Struct, frozen=True):
    done: float
    total: float | None
    message: str | None


def connection_of(ctx: ServerRequestContext[Any, Any]) -> Connection:
    """The client's connection, which outlives the request: its state, and what to do when it ends.

    The SDK keeps it private to the session, and offers no other way to learn that a session of Streamable
    HTTP ended. FastMCP reaches for it in the same way.
    """
    return ctx.session._connection


def wire_result(result: CallResult) -> dict[str, Any]:
    """The wire form of a call's outcome.

    Raises:
        MCPError: the call was refused for who made it, or for a state that did not come from here.
    """
    if result.reason in ACCESS_REASONS or result.reason in STATE_REASONS:
        raise MCPError(
            INVALID_PARAMS,
            result.message or f"The tool {result.tool!r} cannot be called.",
            {"tool": result.tool, "reason": result.reason},
        )
    if result.outcome is Outcome.INPUT_REQUIRED:
        return wire_questions(result)
    content = result.content
    if not content and result.message:
        content = [{"type": "text", "text": result.message}]
    wire: dict[str, Any] = {"content": content, "isError": result.is_error, "resultType": "complete"}
    if result.structured is not None:
        wire["structuredContent"] = result.structured
    return wire


def _wanted_levels(ctx: ServerRequestContext[Any, Any]) -> Collection[str]:
    """The log levels that this request's client reads.

    On 2026-07-28 each request says so, and one that says nothing wants none; before, a session did with
    `logging/setLevel`, and one that says nothing gets everything.
    """
    least = connection_of(ctx).state.get(_LEVEL_KEY)
    if least in _LEVELS:
        return _LEVELS[_LEVELS.index(least) :]
    return allowed_log_levels(ctx.protocol_version, ctx.meta)


def _calling(ctx: ServerRequestContext[Any, Any], caller: Caller) -> Caller:
    """The caller with what only the MCP connection knows: what the client calls itself, and its session."""
    client = ctx.session.client_params
    agent = f"{client.client_info.name}/{client.client_info.version}"[:200] if client is not None else caller.agent
    return msgspec.structs.replace(caller, agent=agent, session=_session_id(ctx) or caller.session)


def _session_id(ctx: ServerRequestContext[Any, Any]) -> str | None:
    if isinstance(ctx.request, Request):
        return ctx.request.headers.get("mcp-session-id") or ctx.request.query_params.get("session_id")
    return None
