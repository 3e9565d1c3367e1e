"""Puts the MCP server together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec
from fastmcp import FastMCP
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.request_state import RequestStateBoundary
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError
from mcp_types import (
    METHOD_NOT_FOUND,
    CallToolRequestParams,
    NotificationParams,
    PaginatedRequestParams,
    SetLevelRequestParams,
    SubscriptionsListenRequestParams,
)
from starlette.routing import BaseRoute, Route

from portoser import __version__
from portoser.identity.tokens import TokenFile
from portoser.invocation import Invocation
from portoser.mcp.calls import Calls
from portoser.mcp.credentials import LOOK_SECONDS, OpenStreams
from portoser.mcp.http import StreamableHttp
from portoser.mcp.listing import PAGE_SIZE, Listing, PageCache
from portoser.mcp.provider import SnapshotProvider
from portoser.mcp.sessions import SessionCallers
from portoser.mcp.sse import EXPIRY_GRACE_SECONDS, MAX_SESSIONS, SseSessions
from portoser.mcp.subscribers import Subscribers
from portoser.registry.access import Access
from portoser.registry.follower import Follower

NAME: Final = "Portoser MCP Server"
HTTP_PATH: Final = "/mcp"
SSE_PATH: Final = "/mcp/sse"
MESSAGES_PATH: Final = "/mcp/messages/"

INSTRUCTIONS: Final = (
    "The tools of this server come from a reviewed registry and change while you are connected: "
    "when you are told that the list changed, list them again."
)

CAPABILITIES: Final[dict[str, Any]] = {"tools": {"listChanged": True}, "logging": {}}
"""What this server does, in both eras. Nothing else is served, so nothing else is claimed."""

_NOT_SERVED: Final = ("prompts/", "resources/", "completion/")


class McpStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Who is connected right now, on this replica."""

    sse_sessions: int
    subscribers: int
    """Clients that are told of changes: sessions of either transport, and listening 2026-07-28 clients."""


class McpServer:
    """The MCP endpoints of one replica.

    Put `routes` into the application, behind the identity middleware and the guard; keep `lifespan`
    entered while it serves; call `drain` when the process is told to stop, before it waits for open
    connections, because the streams would keep them open.
    """

    def __init__(
        self,
        fastmcp: FastMCP[Any],
        http: StreamableHttp,
        sse: SseSessions,
        subscribers: Subscribers,
        listen: ListenHandler,
        open_streams: OpenStreams,
    ) -> None:
        self.fastmcp = fastmcp
        self._http = http
        self._sse = sse
        self._subscribers = subscribers
        self._listen = listen
        self._open_streams = open_streams
        messages = MESSAGES_PATH.rstrip("/")
        self.routes: list[BaseRoute] = [
            Route(SSE_PATH, endpoint=sse.stream),
            Route(messages, endpoint=sse.messages),
            Route(f"{messages}/", endpoint=sse.messages),
            Route(HTTP_PATH, endpoint=http),
            Route(f"{HTTP_PATH}/", endpoint=http),
        ]

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Serve while entered."""
        async with self._subscribers.running(), self._http.running() as state:
            self._sse.start(state)
            self._subscribers.spawn(partial(self._open_streams.watch, self._subscribers.callers_changed))
            try:
                yield
            finally:
                self.drain()

    def drain(self) -> None:
        """End every stream in order; clients connect again, to whoever serves then."""
        self._sse.drain()
        self._listen.close()
        self._http.drain()

    def status(self) -> McpStatus:
        """Who is connected."""
        return McpStatus(sse_sessions=len(self._sse), subscribers=len(self._subscribers))


def build_mcp(
    follower: Follower,
    access: Access,
    invocation: Invocation,
    *,
    page_size: int = PAGE_SIZE,
    max_sessions: int = MAX_SESSIONS,
    expiry_grace: float = EXPIRY_GRACE_SECONDS,
    tokens: TokenFile | None = None,
    look_seconds: float = LOOK_SECONDS,
) -> McpServer:
    """The MCP server over the follower's snapshot.

    ``tokens`` is the token file by which callers are known, None while auth is off: it is looked at every
    ``look_seconds``, so that the streams of a token that was taken back end.
    ``expiry_grace`` is how many seconds a stream outlives its token; ``max_sessions`` bounds the event
    streams, and the listening clients, each.
    """
    fastmcp: FastMCP[Any] = FastMCP(
        NAME,
        instructions=INSTRUCTIONS,
        version=__version__,
        providers=[SnapshotProvider(follower, access, invocation)],
        list_page_size=page_size,
    )
    subscribers = Subscribers(follower, access)
    listing = Listing(follower, access, page_size=page_size)
    calls = Calls(invocation, subscribers.spawn)
    listen = ListenHandler(subscribers, max_subscriptions=max_sessions)

    # FastMCP's own handlers cost three times the rest of a call, and grow with the catalog. The SDK's server
    # below it takes ours; FastMCP has no public name for it.
    server: Server[Any] = fastmcp._mcp_server
    server.get_tool_input_schema = listing.input_schema
    server.add_request_handler("tools/list", PaginatedRequestParams, listing.list_tools)
    server.add_request_handler("tools/call", CallToolRequestParams, calls.call_tool)
    server.add_request_handler("logging/setLevel", SetLevelRequestParams, calls.set_level)
    server.add_request_handler("subscriptions/listen", SubscriptionsListenRequestParams, listen)
    server.add_notification_handler("notifications/initialized", NotificationParams, subscribers.initialized)
    # Invocation signs the states of calls that ask, for all transports and replicas, and takes each once.
    server.middleware[:] = [each for each in server.middleware if not isinstance(each, RequestStateBoundary)]
    server.middleware += [_only_what_is_served, SessionCallers(subscribers), PageCache(listing)]

    open_streams = OpenStreams(tokens, expiry_grace=expiry_grace, look_seconds=look_seconds)
    http = StreamableHttp(server, open_streams=open_streams, expiry_grace=expiry_grace)
    sse = SseSessions(
        server,
        messages_path=MESSAGES_PATH,
        open_streams=open_streams,
        max_sessions=max_sessions,
        expiry_grace=expiry_grace,
    )
    return McpServer(fastmcp, http, sse, subscribers, listen, open_streams)


async def _only_what_is_served(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Claim our capabilities, and none of those that FastMCP has handlers for but we have nothing for."""
    if ctx.request_id is not None and ctx.method.startswith(_NOT_SERVED):
        raise MCPError(METHOD_NOT_FOUND, "Method not found", ctx.method)
    result = await call_next(ctx)
    if ctx.method in ("initialize", "server/discover") and isinstance(result, dict):
        return {**result, "capabilities": CAPABILITIES}
    return result
