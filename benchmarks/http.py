"""HTTP/1.1 as far as a benchmark needs it: raw asyncio protocols, so that the client costs next to nothing."""

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple, Self, cast


class HttpError(Exception):
    """The server answered something that is no HTTP, or hung up."""


class Response(NamedTuple):
    """A whole response. ``content_type`` is in lower case, without parameters; ``session`` is its Mcp-Session-Id."""

    status: int
    content_type: bytes
    body: bytes
    session: str = ""


class Head(NamedTuple):
    """What of a response's head matters here. ``length`` is -1 for a chunked body."""

    status: int
    length: int
    content_type: bytes
    session: str


def parse_head(head: bytes) -> Head:
    """The status line and the headers that say how the body is framed."""
    lines = head.split(b"\r\n")
    status, length, content_type, session = int(lines[0].split(b" ", 2)[1]), 0, b"", ""
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        match name.lower():
            case b"content-length":
                length = int(value)
            case b"transfer-encoding":
                length = -1
            case b"content-type":
                content_type = value.split(b";", 1)[0].strip().lower()
            case b"mcp-session-id":
                session = value.strip().decode()
    return Head(status, length, content_type, session)


class Chunks:
    """Takes the framing off a chunked body that arrives piece by piece."""

    def __init__(self) -> None:
        self.done = False
        self._buffer = bytearray()

    def feed(self, data: bytes) -> bytes:
        """The payload that ``data`` completes; sets ``done`` at the last chunk."""
        buffer, payload = self._buffer, bytearray()
        buffer += data
        while not self.done:
            end = buffer.find(b"\r\n")
            if end < 0:
                break
            size = int(bytes(buffer[:end]).split(b";", 1)[0], 16)
            if len(buffer) < end + 4 + size:
                break
            payload += buffer[end + 2 : end + 2 + size]
            del buffer[: end + 4 + size]
            self.done = size == 0
        return bytes(payload)


class Connection(asyncio.Protocol):
    """One keep-alive connection: one request at a time, each answered by a whole Response."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._buffer = bytearray()
        self._head: Head | None = None
        self._chunks: Chunks | None = None
        self._body = bytearray()

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect to a server on loopback."""
        _, protocol = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return protocol

    @property
    def closed(self) -> bool:
        """Whether one side has hung up."""
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def request(self, data: bytes) -> "asyncio.Future[Response]":
        """Send the bytes of a request; the future holds the response."""
        if self._transport is None or self._transport.is_closing():
            raise HttpError("The server closed the connection.")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return self._waiter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(HttpError(f"The server hung up in the middle of a request: {exc}"))

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._chunks is None:
            self._buffer += data
            if self._head is None:
                end = self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    return
                self._head = parse_head(bytes(self._buffer[:end]))
                del self._buffer[: end + 4]
            if self._head.length >= 0:
                if len(self._buffer) >= self._head.length:
                    self._body += self._buffer[: self._head.length]
                    del self._buffer[: self._head.length]
                    self._answer()
                return
            self._chunks = Chunks()
            data = bytes(self._buffer)
            self._buffer.clear()
        self._body += self._chunks.feed(data)
        if self._chunks.done:
            self._answer()

    def _answer(self) -> None:
        head, waiter = self._head, self._waiter
        assert head is not None
        assert waiter is not None
        response = Response(head.status, head.content_type, bytes(self._body), head.session)
        self._body.clear()
        self._head = self._chunks = self._waiter = None
        if not waiter.done():
            waiter.set_result(response)


class EventStream(asyncio.Protocol):
    """A connection that sends one request and hands each server-sent event to a callback."""

    def __init__(self, on_event: Callable[[bytes, bytes], None]) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_event = on_event
        self._transport: asyncio.Transport | None = None
        self._head: Head | None = None
        self._chunks = Chunks()
        self._buffer = bytearray()
        self._text = b""

    @classmethod
    async def open(cls, port: int, request: bytes, on_event: Callable[[bytes, bytes], None]) -> Self:
        """Connect and send ``request``; ``on_event(event, data)`` is called for each event until ``close``."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(lambda: cls(on_event), "127.0.0.1", port)
        assert protocol._transport is not None
        protocol._transport.write(request)
        return protocol

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._head is None:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = parse_head(bytes(self._buffer[:end]))
            data = bytes(self._buffer[end + 4 :])
            if self._head.status != 200 or self._head.length >= 0:
                self.closed.set_exception(HttpError(f"Not an event stream: {bytes(self._buffer[:500])!r}"))
                self.close()
                return
        self._text += self._chunks.feed(data).replace(b"\r\n", b"\n")
        *events, self._text = self._text.split(b"\n\n")
        for event in events:
            self._dispatch(event)

    def _dispatch(self, text: bytes) -> None:
        name, data = b"message", b""
        for line in text.split(b"\n"):
            if line.startswith(b"event:"):
                name = line[6:].strip()
            elif line.startswith(b"data:"):
                data += line[5:].strip()
        if data:
            self._on_event(name, data)


def get(port: int, path: str, headers: Mapping[str, str] | None = None, *, accept: str = "application/json") -> bytes:
    """The bytes of a GET."""
    return _head("GET", port, path, {"Accept": accept, **(headers or {})})


def delete(port: int, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a DELETE."""
    return _head("DELETE", port, path, headers or {})


def post(port: int, path: str, body: bytes, headers: Mapping[str, str] | None = None, *, method: str = "POST") -> bytes:
    """The bytes of a POST of JSON, with the Accept header that MCP asks for."""
    told = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        **(headers or {}),
        "Content-Length": str(len(body)),
    }
    return _head(method, port, path, told) + body


def bearer(token: str | None) -> dict[str, str]:
    """The header that says who is asking; none without a token."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def _head(method: str, port: int, path: str, headers: Mapping[str, str]) -> bytes:
    told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{told}\r\n".encode()
