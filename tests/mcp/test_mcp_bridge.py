"""Clients that speak only stdio, through the bridge, as programs of their own."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import mcp
import pytest
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError
from mcp_world import NUMBERS, World, add, answer, forever, served, until

from portoser.catalog.caller import Caller
from portoser.catalog.errors import PortoserError
from portoser.mcp.bridge import sse_url

REPO = Path(__file__).resolve().parents[2]
RUN = (
    "import asyncio, sys; from portoser.mcp.bridge import run_bridge;"
    "sys.exit(asyncio.run(run_bridge(sys.argv[1], token=sys.argv[2] or None)))"
)


def command(url: str, token: str = "") -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-c", RUN, url, token], cwd=REPO)


class Heard:
    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, message: Any) -> None:
        if isinstance(message, mcp.types.ToolListChangedNotification):
            self.count += 1


@pytest.mark.parametrize("path", ["", "/mcp", "/mcp/sse"])
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_it_lists_calls_and_tells_of_changes(world: World, path: str, mode: str) -> None:
    heard = Heard()
    async with mcp.Client(stdio_client(command(world.url + path)), mode=mode, message_handler=heard) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["add"]
        result = await client.call_tool("add", {"a": 1, "b": 2})
        assert result.structured_content == {"result": 3}
        await until(lambda: world.mcp.status().subscribers == 1)
        world.follower.swap(served("sub"))
        await until(lambda: heard.count == 1)
        assert [tool.name for tool in (await client.list_tools()).tools] == ["sub"]
    await until(lambda: world.mcp.status().sse_sessions == 0)


async def test_its_token_decides_what_its_client_sees(world: World) -> None:
    world.callers["olga"] = Caller(subject="olga", groups=frozenset({"operator"}))
    world.follower.swap(served("op", permissions=("operator",)), served("dev", permissions=("dev",)))
    async with mcp.Client(stdio_client(command(world.url, "olga"))) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["op"]


async def test_every_character_of_a_result_survives(world: World) -> None:
    text = "line\u2028separator \u0085 \r\n \U0001f40d \u0000" + "x" * 3_000_000

    async def say(arguments: dict[str, Any], events: object) -> Any:
        return answer("say", text=text)

    world.follower.swap(served("say"))
    world.invocation.bodies["say"] = say
    async with mcp.Client(stdio_client(command(world.url))) as client:
        assert (await client.call_tool("say", {})).content[0].model_dump()["text"] == text


async def test_a_cancelled_call_is_cancelled_behind_the_bridge(world: World) -> None:
    world.follower.swap(served("slow"))
    world.invocation.bodies["slow"] = forever
    async with mcp.Client(stdio_client(command(world.url)), mode="legacy") as client:
        call = asyncio.create_task(client.call_tool("slow", {}))
        await asyncio.wait_for(world.invocation.started.wait(), 10)
        call.cancel()
        await asyncio.wait_for(world.invocation.cancelled.wait(), 10)


async def test_a_server_that_comes_back_is_found_again_and_the_client_lists_anew() -> None:
    world = World(served("add", input_schema=NUMBERS))
    world.invocation.bodies["add"] = add
    heard = Heard()
    async with contextlib.AsyncExitStack() as stack:
        async with world.serving():
            port = int(world.url.rpartition(":")[2])
            bridge = mcp.Client(stdio_client(command(world.url)), mode="legacy", message_handler=heard)
            client = await stack.enter_async_context(bridge)
            await client.call_tool("add", {"a": 1, "b": 1})
        waiting = asyncio.create_task(client.call_tool("add", {"a": 20, "b": 22}))  # asked while there is no server
        await until(lambda: world.mcp.status().sse_sessions == 0)
        world.follower.swap(served("add", input_schema=NUMBERS), served("sub"))
        async with world.serving(port):
            assert (await waiting).structured_content == {"result": 42}
            await until(lambda: heard.count >= 1)
            assert [tool.name for tool in (await client.list_tools()).tools] == ["add", "sub"]
            await until(lambda: world.mcp.status().subscribers == 1)
            await stack.aclose()
    assert [name for name, _, _ in world.invocation.calls] == ["add", "add"]


async def test_a_call_that_the_client_took_back_while_there_was_no_server_never_runs() -> None:
    world = World(served("add", input_schema=NUMBERS))
    world.invocation.bodies["add"] = add
    async with contextlib.AsyncExitStack() as stack:
        async with world.serving():
            port = int(world.url.rpartition(":")[2])
            client = await stack.enter_async_context(mcp.Client(stdio_client(command(world.url)), mode="legacy"))
            await client.call_tool("add", {"a": 1, "b": 1})
        await until(lambda: world.mcp.status().sse_sessions == 0)
        with pytest.raises(MCPError):
            await client.session.call_tool("add", {"a": 5, "b": 5}, read_timeout_seconds=0.5)
        async with world.serving(port):
            assert (await client.call_tool("add", {"a": 2, "b": 2})).structured_content == {"result": 4}
            await stack.aclose()
    assert [arguments for _, arguments, _ in world.invocation.calls] == [{"a": 1, "b": 1}, {"a": 2, "b": 2}]


async def test_a_call_that_ran_when_the_server_died_is_answered_and_never_sent_again() -> None:
    world = World(served("slow"))
    world.invocation.bodies["slow"] = forever
    async with contextlib.AsyncExitStack() as stack:
        async with world.serving():
            port = int(world.url.rpartition(":")[2])
            client = await stack.enter_async_context(mcp.Client(stdio_client(command(world.url)), mode="legacy"))
            call = asyncio.create_task(client.call_tool("slow", {}))
            await asyncio.wait_for(world.invocation.started.wait(), 10)
            # Dies without a word: the streams break off instead of ending in order.
            for session in list(world.mcp._sse._sessions.values()):
                session.scope.cancel()
            with pytest.raises(MCPError, match="may have run"):
                await call
        async with world.serving(port):
            await client.list_tools()
            await stack.aclose()
    assert [name for name, _, _ in world.invocation.calls] == ["slow"]


async def started(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *arguments, stdin=pipe, stdout=pipe, stderr=pipe, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}
    )


HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}


async def test_what_is_piped_in_is_answered_before_it_exits(world: World) -> None:
    process = await started(sys.executable, "-c", RUN, world.url, "")
    messages = [
        HELLO,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {"a": 1, "b": 1}}},
    ]
    lines = "nonsense\n\n" + "\n".join(json.dumps(message) for message in messages)  # and no line end at the end
    out, errors = await asyncio.wait_for(process.communicate(lines.encode()), 20)
    assert [json.loads(line)["id"] for line in out.splitlines()] == [0, 1]
    assert process.returncode == 0
    assert "ignored a line" in errors.decode()


@contextlib.asynccontextmanager
async def answering(status: int) -> AsyncIterator[str]:
    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer_all, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_server_that_refuses_the_client_is_told_to_the_client_and_to_stderr() -> None:
    async with answering(401) as url:
        process = await started(sys.executable, "-c", RUN, url, "")
        assert process.stdin is not None
        process.stdin.write(json.dumps(HELLO).encode() + b"\n")
        assert await asyncio.wait_for(process.wait(), 20) == 1
        assert process.stdout is not None
        assert process.stderr is not None
        out, errors = await process.stdout.read(), await process.stderr.read()
        process.stdin.close()
        await process.stdin.wait_closed()
    assert "PORTOSER_TOKEN" in errors.decode()
    if out:  # it may have been refused before it read the message
        assert "PORTOSER_TOKEN" in json.loads(out)["error"]["message"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://localhost:8000", "http://localhost:8000/mcp/sse"),
        ("http://localhost:8000/", "http://localhost:8000/mcp/sse"),
        ("http://localhost:8000/mcp", "http://localhost:8000/mcp/sse"),
        ("https://x.org/base/mcp/?groups=a,b", "https://x.org/base/mcp/sse?groups=a,b"),
        ("https://x.org/mcp/sse?groups=a", "https://x.org/mcp/sse?groups=a"),
    ],
)
def test_every_address_of_a_server_leads_to_its_event_stream(given: str, meant: str) -> None:
    assert sse_url(given) == meant


def test_what_is_no_address_is_refused_with_an_example() -> None:
    with pytest.raises(PortoserError, match="for example http"):
        sse_url("localhost:8000")


async def test_node_starts_it_and_hands_the_pipes_on(world: World, tmp_path: Path) -> None:
    # A stand-in for the installed `python -m portoser`, so that the launcher is tested, not the command line.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c \'{RUN}\' "$4" ""\n')
    python.chmod(0o755)
    node = StdioServerParameters(
        command="node",
        args=[str(REPO / "tools" / "mcp-bridge")],
        env={
            **os.environ,
            "PYTHONPATH": str(REPO),
            "PORTOSER_PYTHON": str(python),
            "PORTOSER_SSE_URL": world.sse,
        },
    )
    async with mcp.Client(stdio_client(node)) as client:
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}


async def test_node_says_what_to_do_where_there_is_nothing_to_start(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        "node",
        str(REPO / "tools" / "mcp-bridge" / "index.mjs"),
        env={"PATH": os.environ["PATH"], "PORTOSER_PYTHON": str(tmp_path / "nothing")},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 127
    assert "PORTOSER_PYTHON" in errors.decode()
