"""Clients that leave, dawdle or misbehave: what they began ends as the protocol says, and nothing is left behind."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import httpx
import psutil
import pytest

from e2e_server import Server, new_folder, new_home, sdk_http, sdk_sse, text_of, until

LINGER = '''\
import ctypes, time

def linger(mark: str, seconds: float) -> str:
    """Call the process that runs this by a name, then sleep, then call it by another."""
    ctypes.CDLL(None).prctl(15, mark.encode(), 0, 0, 0)
    time.sleep(seconds)
    ctypes.CDLL(None).prctl(15, f"{mark} done".encode(), 0, 0, 0)
    return "done"
'''
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


@pytest.fixture(scope="module")
def lingering() -> Iterator[Server]:
    """A server with one tool, which takes its time."""
    with new_folder() as folder:
        server = Server(new_home(folder / "home", examples=False), PORTOSER_WORKERS="4")
        server.write("linger.py", LINGER)
        server.write("linger.yaml", "kind: Tool\n")
        server.start()
        yield server
        assert server.stop() == 0, server.output()
        assert "Exception in ASGI application" not in server.output()


def message(method: str, id_: int | None = None, **params: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    return body if id_ is None else {**body, "id": id_}


def linger_call(mark: str, seconds: float, **meta: Any) -> dict[str, Any]:
    arguments = {"mark": mark, "seconds": seconds}
    return message("tools/call", 1, name="linger", arguments=arguments, **({"_meta": meta} if meta else {}))


HELLO = message(
    "initialize", 0, protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "test", "version": "1"}
)


@asynccontextmanager
async def legacy_session(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=20) as http:
        opened = await http.post("/mcp", json=HELLO)
        http.headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
        await http.post("/mcp", json=message("notifications/initialized"))
        yield http
        await http.delete("/mcp")


async def begun(server: Server, mark: str) -> int:
    """The process that the call runs in, once it does."""

    async def look() -> int | None:
        return server.worker(mark)

    return int(await until(look))


def last_of(server: Server) -> Callable[[], Any]:
    """The outcome of the call that was recorded last."""
    seen = len(rows(server))

    async def look() -> str | None:
        now = await asyncio.to_thread(rows, server)
        return str(now[0]["outcome"]) if len(now) > seen else None

    return look


def rows(server: Server) -> list[dict[str, Any]]:
    params: dict[str, Any] = {"tool": "linger", "event": "tool.call", "limit": 500}
    found: list[dict[str, Any]] = server.api("GET", "/api/mcp/audit/logs", params=params).json()["entries"]
    return found


def gone(pid: int) -> Callable[[], Any]:
    async def look() -> bool:
        return not psutil.pid_exists(pid)

    return look


async def test_the_end_of_an_event_stream_ends_its_call(lingering: Server) -> None:
    outcome = last_of(lingering)
    async with httpx.AsyncClient(base_url=lingering.url, timeout=20) as http:
        async with http.stream("GET", "/mcp/sse") as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == "event: endpoint"
            path = (await anext(lines)).removeprefix("data: ")
            for body in (HELLO, message("notifications/initialized"), linger_call("file", 30)):
                assert (await http.post(path, json=body)).status_code == 202
            pid = await begun(lingering, "file")
        assert await until(outcome) == "cancelled"
        assert (await http.post(path, json=message("ping", 9))).status_code == 404
    await until(gone(pid))


@pytest.mark.parametrize("answering", ["json", "events"])
async def test_the_end_of_a_response_ends_its_call_on_2026_07_28(lingering: Server, answering: str) -> None:
    outcome = last_of(lingering)
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "linger",
    }
    more: dict[str, Any] = {"io.modelcontextprotocol/logLevel": "debug"} if answering == "events" else {}
    async with httpx.AsyncClient(base_url=lingering.url, headers=headers, timeout=20) as http:
        body = linger_call("file", 30, **META, **more)
        call = asyncio.create_task(http.post("/mcp", json=body))
        pid = await begun(lingering, "file")
        call.cancel()
        await asyncio.wait([call])
    assert await until(outcome) == "cancelled"
    await until(gone(pid))


async def test_a_dropped_post_of_a_session_lets_its_call_run_to_its_end(lingering: Server) -> None:
    outcome = last_of(lingering)
    async with legacy_session(lingering) as http:
        call = asyncio.create_task(http.post("/mcp", json=linger_call("file", 1.0)))
        pid = await begun(lingering, "file")
        call.cancel()
        await asyncio.wait([call])
        assert await until(outcome) == "ok"
        assert lingering.worker("file done") == pid
        again = await http.post("/mcp", json=linger_call("again", 0))
        assert "done" in again.text
    assert lingering.worker("again done") == pid  # the worker was as good as before


async def test_a_session_that_is_deleted_ends_its_call(lingering: Server) -> None:
    outcome = last_of(lingering)
    async with legacy_session(lingering) as http:
        call = asyncio.create_task(http.post("/mcp", json=linger_call("file", 30)))
        pid = await begun(lingering, "file")
        assert (await http.delete("/mcp")).status_code == 200
        await asyncio.wait([call])
    assert await until(outcome) == "cancelled"
    await until(gone(pid))


@pytest.mark.parametrize("transport", ["sse", "legacy", "2026-07-28"])
async def test_a_call_that_its_client_takes_back_is_ended(lingering: Server, transport: str) -> None:
    outcome = last_of(lingering)
    client_of = sdk_sse(lingering) if transport == "sse" else sdk_http(lingering, transport)
    async with client_of as (client, _):
        call = asyncio.create_task(client.call_tool("linger", {"mark": "file", "seconds": 30}))
        pid = await begun(lingering, "file")
        call.cancel()
        await asyncio.wait([call])
        assert await until(outcome) == "cancelled"
        await until(gone(pid))
        again = await client.call_tool("linger", {"mark": "again", "seconds": 0})
        assert text_of(again) == "done"


async def test_clients_that_come_call_and_leave_leave_nothing_behind(lingering: Server) -> None:
    assert lingering.process is not None
    process = psutil.Process(lingering.process.pid)

    async def visit(number: int) -> None:
        for transport in ("sse", "legacy", "2026-07-28"):
            client_of = sdk_sse(lingering) if transport == "sse" else sdk_http(lingering, transport)
            async with client_of as (client, _):
                mark = f"{transport}-{number}"
                call = asyncio.create_task(client.call_tool("linger", {"mark": mark, "seconds": 30}))
                await begun(lingering, mark)
                call.cancel()
                await asyncio.wait([call])

    async def at_rest() -> bool:
        runtime = (await asyncio.to_thread(lingering.api, "GET", "/api/mcp/status")).json()["runtime"]
        return bool(runtime["busy"] == 0 and runtime["queued"] == 0)

    await visit(0)
    await until(at_rest)
    descriptors, threads = process.num_fds(), process.num_threads()
    for number in range(1, 8):
        await visit(number)
    await until(at_rest)

    async def as_before() -> bool:
        # A spare worker, with its descriptors, may just be on its way.
        return process.num_fds() <= descriptors + 6 and process.num_threads() <= threads + 2

    await until(as_before, 20)


async def test_a_thousand_connections_that_open_and_close_leave_nothing_behind(lingering: Server) -> None:
    assert lingering.process is not None
    process = psutil.Process(lingering.process.pid)
    host, port = "127.0.0.1", int(lingering.url.rsplit(":", 1)[1])
    before = process.num_fds()
    with ExitStack() as stack:
        for number in range(1000):
            each = stack.enter_context(socket.create_connection((host, port)))
            if number % 4 == 1:
                each.sendall(b"GET /mcp/sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
            elif number % 4 == 2:
                each.sendall(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Le")
            elif number % 4 == 3:
                each.sendall(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{")
        assert lingering.api("GET", "/health").status_code == 200
        async with sdk_sse(lingering) as (client, _):
            assert (await client.list_tools()).tools

    async def closed() -> bool:
        return process.num_fds() <= before + 6

    await until(closed, 20)
