"""MCP as bytes: how a call is asked on 2026-07-28 and over SSE, and how its answer is checked."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Protocol, Self

import msgspec

from benchmarks.http import Connection, EventStream, HttpError, Response, post

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
CLIENT = {"name": "portoser-bench", "version": "1"}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
"""The ``_meta`` of each 2026-07-28 request: version and capabilities are required, clientInfo is asked for."""


class WrongAnswer(Exception):
    """The server answered, but not what it should have."""


class Message(msgspec.Struct):
    """A JSON-RPC message from a server: an answer, or a notification."""

    id: int | str | None = None
    method: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(Message)


class Session(Protocol):
    """A client of one server on one transport. One request at a time."""

    async def call_add(self, tool: str, a: int, b: int) -> None:
        """Call a tool that adds, and make sure that the answer is the sum."""

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send any request; its result."""

    def close(self) -> None:
        """Hang up."""


def check_sum(message: Message, expected: int) -> None:
    """Raise WrongAnswer unless ``message`` is a tool result that says ``expected``, as text and structured."""
    result = message.result
    if (
        result is None
        or result.get("isError")
        or result["structuredContent"] != {"result": expected}
        or result["content"][0]["text"] != str(expected)
    ):
        raise WrongAnswer(f"Expected the sum {expected}, got {msgspec.json.encode(message).decode()[:600]}")


def result_of(message: Message) -> dict[str, Any]:
    """The result of an answer; raises WrongAnswer for an error."""
    if message.result is None:
        raise WrongAnswer(f"Expected a result, got {msgspec.json.encode(message).decode()[:600]}")
    return message.result


class ModernSession:
    """2026-07-28 over Streamable HTTP: each request carries its envelope, there is no handshake.

    A server answers with JSON or with an event stream, as it likes; both are understood.
    """

    def __init__(self, port: int, connection: Connection) -> None:
        self._port = port
        self._connection = connection
        self._ids = itertools.count(1)

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect to a server on loopback."""
        return cls(port, await Connection.open(port))

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    async def call_add(self, tool: str, a: int, b: int) -> None:
        """Call a tool that adds, and make sure that the answer is the sum."""
        check_sum(await self._ask("tools/call", {"name": tool, "arguments": {"a": a, "b": b}}), a + b)

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send any request; its result."""
        return result_of(await self._ask(method, params))

    async def _ask(self, method: str, params: dict[str, Any]) -> Message:
        request_id = next(self._ids)
        body = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params | {"_meta": ENVELOPE}}
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        if method == "tools/call":
            headers["Mcp-Name"] = params["name"]
        data = post(self._port, "/mcp", msgspec.json.encode(body), headers)
        response = await self._connection.request(data)
        message = self._answer(response, request_id)
        if response.status != 200 and message.error is None:
            raise WrongAnswer(f"HTTP {response.status}: {response.body[:600]!r}")
        return message

    def _answer(self, response: Response, request_id: int) -> Message:
        if response.content_type == b"application/json":
            return _decoder.decode(response.body)
        if response.content_type != b"text/event-stream":
            raise WrongAnswer(f"HTTP {response.status} {response.content_type!r}: {response.body[:600]!r}")
        for line in response.body.splitlines():
            if line.startswith(b"data:"):
                message = _decoder.decode(line[5:])
                if message.id == request_id:
                    return message
        raise WrongAnswer(f"The stream ended without an answer: {response.body[:600]!r}")


class SseSession:
    """The handshake era over SSE: answers and notifications come on one stream, requests are POSTed."""

    def __init__(self, port: int, on_notification: Callable[[str], None] | None) -> None:
        self._port = port
        self._on_notification = on_notification
        self._stream: EventStream | None = None
        self._connection: Connection | None = None
        self._endpoint: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._ids = itertools.count(1)

    @classmethod
    async def open(cls, port: int, path: str, on_notification: Callable[[str], None] | None = None) -> Self:
        """Open the stream at ``path`` and shake hands. ``on_notification`` gets the method of each notification."""
        session = cls(port, on_notification)
        session._stream = await EventStream.open(port, path, session._on_event)
        session._stream.closed.add_done_callback(session._hung_up)
        async with asyncio.timeout(30):
            await session._endpoint
        hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
        await session.request("initialize", hello)
        await session._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return session

    def close(self) -> None:
        """Hang up."""
        for connection in (self._stream, self._connection):
            if connection is not None:
                connection.close()

    async def call_add(self, tool: str, a: int, b: int) -> None:
        """Call a tool that adds, and make sure that the answer is the sum."""
        check_sum(await self._ask("tools/call", {"name": tool, "arguments": {"a": a, "b": b}}), a + b)

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send any request; its result."""
        return result_of(await self._ask(method, params))

    async def _ask(self, method: str, params: dict[str, Any]) -> Message:
        request_id = next(self._ids)
        answer = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        await self._post({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        return await answer

    async def _post(self, body: dict[str, Any]) -> None:
        if self._connection is None or self._connection.closed:  # a server may end a POST connection that idles
            self._connection = await Connection.open(self._port)
        response = await self._connection.request(post(self._port, self._endpoint.result(), msgspec.json.encode(body)))
        if response.status != 202:
            raise WrongAnswer(f"HTTP {response.status}: {response.body[:600]!r}")

    def _on_event(self, event: bytes, data: bytes) -> None:
        if event == b"endpoint":
            self._endpoint.set_result(data.decode())
            return
        message = _decoder.decode(data)
        if message.method is None and isinstance(message.id, int):
            waiter = self._waiting.pop(message.id)
            if not waiter.done():
                waiter.set_result(message)
        elif message.method is not None and self._on_notification is not None:
            self._on_notification(message.method)

    def _hung_up(self, closed: "asyncio.Future[None]") -> None:
        error = closed.exception() or HttpError("The server ended the event stream.")
        for waiter in (self._endpoint, *self._waiting.values()):
            if not waiter.done():
                waiter.set_exception(error)
