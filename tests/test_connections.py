"""Clients that dawdle, on real sockets: their connections end, and nobody else's."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from portoser.beginning import end_unread
from portoser.connections import Connection


class Served:
    """A server with one path that reads a body, and one that answers much."""

    def __init__(self) -> None:
        self.port = 0
        self.left = asyncio.Event()
        self.go_on = asyncio.Event()

    async def read(self, request: Request) -> Response:
        try:
            return PlainTextResponse(str(len(await request.body())))
        except ClientDisconnect:
            self.left.set()
            return Response()

    async def slow(self, request: Request) -> Response:
        await self.go_on.wait()
        return PlainTextResponse("slow")

    async def much(self, request: Request) -> Response:
        return Response(b"x" * 20_000_000)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = Starlette(
            routes=[
                Route("/read", self.read, methods=["POST"]),
                Route("/slow", self.slow),
                Route("/much", self.much),
            ]
        )
        with socket.socket() as listener:
            end_unread(listener)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            self.port = listener.getsockname()[1]
            config = uvicorn.Config(app, http=Connection, lifespan="off", log_level="warning")
            self.server = uvicorn.Server(config)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.server._serve([listener]))
                try:
                    yield
                finally:
                    self.server.should_exit = True


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", b""),
        (b"POST /re", b"408 Request Timeout"),
        (b"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Le", b"408 Request Timeout"),
        (b"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345", b"408 Request Timeout"),
        (
            b"POST /read HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            b"408 Request Timeout",
        ),
    ],
)
async def test_half_a_request_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch, sent: bytes, answered: bytes
) -> None:
    monkeypatch.setattr("portoser.connections.REQUEST_SECONDS", 0.3)
    served = Served()
    async with served.running():
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(sent)
        async with asyncio.timeout(10):
            told = await reader.read()
        assert answered in told
        writer.close()
        if b"\r\n\r\n" in sent:
            await asyncio.wait_for(served.left.wait(), 10)


@pytest.mark.parametrize(
    "sent", [b"POST /re", b"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n1"]
)
async def test_half_a_request_says_nothing_into_the_answer_to_the_one_before_it(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr("portoser.connections.REQUEST_SECONDS", 0.2)
    served = Served()
    async with served.running():
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n" + sent)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.7)
        served.go_on.set()
        async with asyncio.timeout(10):
            told = await reader.read()
        assert told.startswith(b"HTTP/1.1 200 OK")
        assert told.index(b"slow") < told.index(b"408 Request Timeout")
        writer.close()


async def test_a_request_that_arrives_in_pieces_is_answered_and_so_is_the_next_on_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("portoser.connections.REQUEST_SECONDS", 0.5)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 10
            await asyncio.sleep(0.05)

    served = Served()
    async with served.running(), httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as http:
        for _ in range(4):
            assert (await http.post("/read", content=pieces())).text == "30"
            await asyncio.sleep(0.2)  # the connection rests: that is no request that is late


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this kernel cannot be told")
async def test_an_answer_that_nobody_reads_is_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portoser.beginning.UNREAD_SECONDS", 1.0)
    served = Served()
    async with served.running():
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(20):
                while not served.server.server_state.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                while served.server.server_state.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
