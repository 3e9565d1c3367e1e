"""MCP as bytes: how a call is asked on each transport, and how its answer is checked."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import msgspec

from benchmarks.http import Connection, EventStream, HttpError, Response, bearer, delete, get, post

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
CLIENT = {"name": "portoser-bench", "version": "1"}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
"""The ``_meta`` of each 2026-07-28 request: version and capabilities are required, clientInfo is asked for."""

Notified = Callable[[str], None]
"""Gets the method of each notification."""


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

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Message:
        """Call a tool; whatever the answer is."""

    async def call_and_cancel(self, tool: str, arguments: Mapping[str, Any], after: float) -> None:
        """Call a tool and take the call back ``after`` seconds, as the transport has it."""

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
        raise WrongAnswer(f"Expected the sum {expected}, got {shown(message)}")


def result_of(message: Message) -> dict[str, Any]:
    """The result of an answer; raises WrongAnswer for an error."""
    if message.result is None:
        raise WrongAnswer(f"Expected a result, got {shown(message)}")
    return message.result


def shown(message: Message) -> str:
    """The beginning of an answer, to be read."""
    return msgspec.json.encode(message).decode()[:600]


class ModernSession:
    """2026-07-28 over Streamable HTTP: each request carries its envelope, there is no handshake.

    A server answers with JSON or with an event stream, as it likes; both are understood.
    """

    def __init__(self, port: int, connection: Connection, token: str | None = None) -> None:
        self._port = port
        self._connection = connection
        self._headers = {"MCP-Protocol-Version": MODERN, **bearer(token)}
        self._ids = itertools.count(1)

    @classmethod
    async def open(cls, port: int, token: str | None = None) -> Self:
        """Connect to a server on loopback."""
        return cls(port, await Connection.open(port), token)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    async def call_add(self, tool: str, a: int, b: int) -> None:
        """Call a tool that adds, and make sure that the answer is the sum."""
        check_sum(await self.call(tool, {"a": a, "b": b}), a + b)

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send any request; its result."""
        return result_of(await self._ask(method, params))

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Message:
        """Call a tool; whatever the answer is."""
        return await self._ask("tools/call", {"name": tool, "arguments": arguments})

    async def call_and_cancel(self, tool: str, arguments: Mapping[str, Any], after: float) -> None:
        """Call a tool, and hang up ``after`` seconds."""
        asked = self._request(0, "tools/call", {"name": tool, "arguments": arguments})
        response = (await self._connected()).request(asked)
        await asyncio.sleep(after)
        if response.done():
            raise WrongAnswer(f"A call that was to be taken back was answered: {response.result().body[:600]!r}")
        self._connection.close()
        with contextlib.suppress(HttpError):
            await response

    async def listen(self, on_notification: Notified) -> EventStream:
        """Ask to be told when the tools change. The stream is a connection of its own; close it."""
        params = {"notifications": {"toolsListChanged": True}}
        asked = self._request(0, "subscriptions/listen", params)
        return await EventStream.open(self._port, asked, lambda _, data: _tell(data, on_notification))

    def _request(self, request_id: int, method: str, params: dict[str, Any]) -> bytes:
        body = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params | {"_meta": ENVELOPE}}
        headers = {**self._headers, "Mcp-Method": method}
        if method == "tools/call":
            headers["Mcp-Name"] = params["name"]
        return post(self._port, "/mcp", msgspec.json.encode(body), headers)

    async def _connected(self) -> Connection:
        if self._connection.closed:  # a server may end a connection that idles
            self._connection = await Connection.open(self._port)
        return self._connection

    async def _ask(self, method: str, params: dict[str, Any]) -> Message:
        request_id = next(self._ids)
        response = await (await self._connected()).request(self._request(request_id, method, params))
        message = answer_in(response, request_id)
        if response.status != 200 and message.error is None:
            raise WrongAnswer(f"HTTP {response.status}: {response.body[:600]!r}")
        return message


def answer_in(response: Response, request_id: int) -> Message:
    """The answer to a request, from a response of JSON or from one that is an event stream."""
    if response.content_type == b"application/json":
        return _decoder.decode(response.body)
    if response.content_type != b"text/event-stream":
        raise WrongAnswer(f"HTTP {response.status} {response.content_type!r}: {response.body[:600]!r}")
    for line in response.body.splitlines():
        if line.startswith(b"data:") and len(line) > len(b"data: "):
            message = _decoder.decode(line[5:])
            if message.id == request_id:
                return message
    raise WrongAnswer(f"The stream ended without an answer: {response.body[:600]!r}")


def _tell(data: bytes, on_notification: Notified) -> None:
    method = _decoder.decode(data).method
    if method is not None:
        on_notification(method)


class LegacySession:
    """The handshake era over Streamable HTTP: a session that the server keeps, named by a header."""

    def __init__(self, port: int, connection: Connection, token: str | None) -> None:
        self._port = port
        self._connection = connection
        self._headers = bearer(token)
        self._ids = itertools.count(1)
        self._stream: EventStream | None = None

    @classmethod
    async def open(cls, port: int, token: str | None = None, on_notification: Notified | None = None) -> Self:
        """Connect and shake hands. With ``on_notification`` a stream is opened that hears of changes."""
        session = cls(port, await Connection.open(port), token)
        hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
        response, request_id = await session._send("initialize", hello)
        result_of(answer_in(response, request_id))
        session._headers |= {"Mcp-Session-Id": response.session, "MCP-Protocol-Version": LEGACY}
        await session._notify(session._connection, "notifications/initialized", {})
        if on_notification is not None:
            listening = get(port, "/mcp", session._headers, accept="text/event-stream")
            on_event = on_notification  # narrowed for the lambda
            session._stream = await EventStream.open(port, listening, lambda _, data: _tell(data, on_event))
        return session

    def close(self) -> None:
        """Hang up, and say nothing: what most clients do."""
        self._connection.close()
        if self._stream is not None:
            self._stream.close()

    async def end(self) -> None:
        """Tell the server that the session is over, and hang up."""
        if not self._connection.closed:
            await self._connection.request(delete(self._port, "/mcp", self._headers))
        self.close()

    async def call_add(self, tool: str, a: int, b: int) -> None:
        """Call a tool that adds, and make sure that the answer is the sum."""
        check_sum(await self.call(tool, {"a": a, "b": b}), a + b)

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send any request; its result."""
        response, request_id = await self._send(method, params)
        return result_of(answer_in(response, request_id))

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Message:
        """Call a tool; whatever the answer is."""
        response, request_id = await self._send("tools/call", {"name": tool, "arguments": arguments})
        return answer_in(response, request_id)

    async def call_and_cancel(self, tool: str, arguments: Mapping[str, Any], after: float) -> None:
        """Call a tool, and say ``after`` seconds that it is not wanted any more."""
        request_id = next(self._ids)
        asked = self._request(request_id, "tools/call", {"name": tool, "arguments": arguments})
        response = (await self._connected()).request(asked)
        await asyncio.sleep(after)
        if response.done():
            raise WrongAnswer(f"A call that was to be taken back was answered: {response.result().body[:600]!r}")
        other = await Connection.open(self._port)
        try:
            await self._notify(other, "notifications/cancelled", {"requestId": request_id})
        finally:
            other.close()
        try:
            async with asyncio.timeout(5):
                await response
        except (TimeoutError, HttpError):
            self._connection.close()

    def _request(self, request_id: int, method: str, params: dict[str, Any]) -> bytes:
        body = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        return post(self._port, "/mcp", msgspec.json.encode(body), self._headers)

    async def _connected(self) -> Connection:
        if self._connection.closed:
            self._connection = await Connection.open(self._port)
        return self._connection

    async def _send(self, method: str, params: dict[str, Any]) -> tuple[Response, int]:
        request_id = next(self._ids)
        return await (await self._connected()).request(self._request(request_id, method, params)), request_id

    async def _notify(self, connection: Connection, method: str, params: dict[str, Any]) -> None:
        body = msgspec.json.encode({"jsonrpc": "2.0", "method": method, "params": params})
        response = await connection.request(post(self._port, "/mcp", body, self._headers))
        if response.status != 202:
            raise WrongAnswer(f"HTTP {response.status}: {response.body[:600]!r}")


class SseSession:
    """The handshake era over SSE: answers and notifications come on one stream, requests are POSTed."""

    def __init__(self, port: int, on_notification: Notified | None, token: str | None) -> None:
        self._port = port
        self._on_notification = on_notification
        self._headers = bearer(token)
        self._stream: EventStream | None = None
        self._connection: Connection | None = None
        self._endpoint: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._ids = itertools.count(1)

    @classmethod
    async def open(
        cls, port: int, path: str, on_notification: Notified | None = None, token: str | None = None
    ) -> Self:
        """Open the stream at ``path`` and shake hands."""
        session = cls(port, on_notification, token)
        listening = get(port, path, session._headers, accept="text/event-stream")
        session._stream = await EventStream.open(port, listening, session._on_event)
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
        check_sum(await self.call(tool, {"a": a, "b": b}), a + b)

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send any request; its result."""
        return result_of(await (await self._ask(next(self._ids), method, params)))

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Message:
        """Call a tool; whatever the answer is."""
        return await (await self._ask(next(self._ids), "tools/call", {"name": tool, "arguments": arguments}))

    async def call_and_cancel(self, tool: str, arguments: Mapping[str, Any], after: float) -> None:
        """Call a tool, and say ``after`` seconds that it is not wanted any more."""
        request_id = next(self._ids)
        answer = await self._ask(request_id, "tools/call", {"name": tool, "arguments": arguments})
        try:
            await asyncio.sleep(after)
        finally:
            self._waiting.pop(request_id, None)  # it may be answered or not
        if answer.done():
            raise WrongAnswer(f"A call that was to be taken back was answered: {shown(answer.result())}")
        await self._post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}})

    async def _ask(self, request_id: int, method: str, params: dict[str, Any]) -> "asyncio.Future[Message]":
        answer = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        await self._post({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        return answer

    async def _post(self, body: dict[str, Any]) -> None:
        if self._connection is None or self._connection.closed:  # a server may end a POST connection that idles
            self._connection = await Connection.open(self._port)
        asked = post(self._port, self._endpoint.result(), msgspec.json.encode(body), self._headers)
        response = await self._connection.request(asked)
        if response.status != 202:
            raise WrongAnswer(f"HTTP {response.status}: {response.body[:600]!r}")

    def _on_event(self, event: bytes, data: bytes) -> None:
        if event == b"endpoint":
            self._endpoint.set_result(data.decode())
            return
        message = _decoder.decode(data)
        if message.method is None and isinstance(message.id, int):
            waiter = self._waiting.pop(message.id, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(message)
        elif message.method is not None and self._on_notification is not None:
            self._on_notification(message.method)

    def _hung_up(self, closed: "asyncio.Future[None]") -> None:
        error = closed.exception() or HttpError("The server ended the event stream.")
        waiting: list[asyncio.Future[Any]] = [self._endpoint, *self._waiting.values()]
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(error)
