"""A real MCP server on a real socket, over a registry and an invocation that tests can steer.

The follower and the invocation are fakes: they do not prove that a change reaches a snapshot through
Postgres, nor that a call is validated, audited or run in a worker. The end-to-end tests do.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from portoser.audit.entry import Outcome
from portoser.catalog.caller import ANONYMOUS, Caller
from portoser.catalog.policy import Policy
from portoser.catalog.revision import Annotations, Declaration, JsonSchema, SourceFile, revision_of
from portoser.catalog.tool import Provenance, RegisteredTool
from portoser.identity.authenticate import Authenticator
from portoser.identity.middleware import IdentityMiddleware
from portoser.identity.tokens import TokenFile
from portoser.invocation import CallResult, Invocation
from portoser.invocation.asks import Asks, Later
from portoser.mcp.guard import LOOPBACK_HOSTS, HostOriginGuard
from portoser.mcp.server import McpServer, build_mcp
from portoser.registry.access import Access
from portoser.registry.follower import Follower
from portoser.registry.snapshot import ServedTool, Snapshot
from portoser.runtime.types import Events

NUMBERS: JsonSchema = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
NOTHING: JsonSchema = {"type": "object", "properties": {}}

_NOT_ASKED = Later()

Body = Callable[[dict[str, Any], Events | None], Awaitable[CallResult]]


def served(
    name: str,
    *,
    description: str = "A tool.",
    input_schema: JsonSchema = NOTHING,
    output_schema: JsonSchema | None = None,
    permissions: tuple[str, ...] = (),
    group: str | None = None,
    enabled: bool = True,
    annotations: Annotations = Annotations(),  # noqa: B008 - immutable
) -> ServedTool:
    declaration = Declaration(
        files=(SourceFile("tool.py", "def tool(): ..."),), entrypoint="tool.py:tool", annotations=annotations
    )
    revision = revision_of(declaration, description=description, input_schema=input_schema, output_schema=output_schema)
    now = datetime(2026, 11, 1, tzinfo=UTC)
    registered = RegisteredTool(
        id=name,
        name=name,
        owner="git:main",
        revision=revision,
        version=1,
        group=group,
        permissions=permissions,
        provenance=Provenance(source="main"),
        generation=1,
        created_at=now,
        updated_at=now,
    )
    return ServedTool(
        registered=registered, permissions=permissions, enabled=enabled, listing_digest=revision.listing_digest()
    )


def snapshot_of(generation: int, *tools: ServedTool) -> Snapshot:
    by_name = {tool.name: tool for tool in sorted(tools, key=lambda tool: tool.name)}
    return Snapshot(generation=generation, tools=by_name, groups={}, policy=Policy())


class SteeredFollower:
    """Serves the snapshot that a test put last."""

    def __init__(self, *tools: ServedTool) -> None:
        self.snapshot = snapshot_of(1, *tools)
        self._callbacks: list[Callable[[Snapshot, Snapshot], None]] = []

    def on_swap(self, callback: Callable[[Snapshot, Snapshot], None]) -> None:
        self._callbacks.append(callback)

    def swap(self, *tools: ServedTool) -> None:
        old, self.snapshot = self.snapshot, snapshot_of(self.snapshot.generation + 1, *tools)
        for callback in self._callbacks:
            callback(old, self.snapshot)


class SteeredInvocation:
    """Runs coroutines of the test in place of tools, and remembers what it was asked."""

    def __init__(self, follower: SteeredFollower, access: Access) -> None:
        self._follower = follower
        self._access = access
        self.bodies: dict[str, Body] = {}
        self.calls: list[tuple[str, dict[str, Any], Caller]] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.asks: Asks = Later()
        """How the user of the last call could be asked."""

    async def invoke(
        self,
        name: str,
        arguments: dict[str, Any],
        caller: Caller,
        *,
        request_id: str | None = None,
        events: Events | None = None,
        confirmed: bool = False,
        asks: Asks = _NOT_ASKED,
    ) -> CallResult:
        self.calls.append((name, arguments, caller))
        self.asks = asks
        decision = self._access.decide(self._follower.snapshot, name, caller)
        if not decision.allowed:
            return answer(name, Outcome.DENIED, reason=decision.reason, message=decision.message)
        self.started.set()
        try:
            return await self.bodies[name](arguments, events)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def answer(
    tool: str,
    outcome: Outcome = Outcome.OK,
    *,
    text: str | None = None,
    content: list[dict[str, Any]] | None = None,
    structured: dict[str, Any] | None = None,
    reason: str | None = None,
    message: str | None = None,
) -> CallResult:
    blocks = content or ([{"type": "text", "text": text}] if text is not None else [])
    return CallResult(
        outcome=outcome,
        reason=reason,
        message=message,
        is_error=outcome is not Outcome.OK,
        content=blocks,
        structured=structured,
        tool=tool,
        digest=None,
        version=None,
        duration_ms=1.0,
        request_id="r",
        logs="",
    )


async def add(arguments: dict[str, Any], events: Events | None) -> CallResult:
    total = arguments["a"] + arguments["b"]
    return answer("add", text=str(total), structured={"result": total})


async def forever(arguments: dict[str, Any], events: Events | None) -> CallResult:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


class BearerIsCaller:
    """Stands in for the identity middleware: the token is the subject; `alice:operator,dev` adds groups."""

    def __init__(self, app: ASGIApp, callers: dict[str, Caller]) -> None:
        self._app = app
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            token = next((value.decode() for name, value in scope["headers"] if name == b"authorization"), "")
            scope.setdefault("state", {})["caller"] = self._callers.get(token.removeprefix("Bearer "), ANONYMOUS)
        await self._app(scope, receive, send)


class World:
    """The running server and what a test steers it with. With ``tokens`` callers are told by them."""

    def __init__(self, *tools: ServedTool, **options: Any) -> None:
        self.follower = SteeredFollower(*tools)
        self.access = Access(frozenset({"admins"}))
        self.invocation = SteeredInvocation(self.follower, self.access)
        self.callers: dict[str, Caller] = {}
        self.tokens: TokenFile | None = options.get("tokens")
        self.mcp: McpServer = build_mcp(
            cast("Follower", self.follower), self.access, cast("Invocation", self.invocation), **options
        )
        self.url = ""

    @property
    def sse(self) -> str:
        return f"{self.url}/mcp/sse"

    @property
    def http(self) -> str:
        return f"{self.url}/mcp"

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["World"]:
        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with self.mcp.lifespan():
                yield

        routed = Starlette(routes=self.mcp.routes, lifespan=lifespan)
        inner: ASGIApp = BearerIsCaller(routed, self.callers)
        if self.tokens is not None:
            inner = IdentityMiddleware(routed, Authenticator(self.tokens))
        app = HostOriginGuard(inner, allowed_hosts=LOOPBACK_HOSTS)
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(app, log_level="warning", lifespan="on", ws="none", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server._serve([listener]))
            await until(lambda: server.started)
            try:
                yield self
            finally:
                self.mcp.drain()
                server.should_exit = True


async def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait for a condition that no event announces."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
