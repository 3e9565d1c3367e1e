"""What tools may return and how they end, as a client sees it."""

import asyncio

from e2e_server import Server, fastmcp_client, sdk_sse, text_of


async def test_progress_and_logs_of_an_async_tool_reach_the_client(server: Server) -> None:
    progress: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    async with fastmcp_client(server, "sse", progress_handler=on_progress) as client:
        result = await client.call_tool("examples.countdown", {"start": 3})
        assert not result.is_error
    assert progress == sorted(progress)
    assert len(progress) >= 3


async def test_an_image_arrives_as_an_image(server: Server) -> None:
    async with sdk_sse(server) as (client, _):
        result = await client.call_tool("examples.chart", {"values": [1, 3, 2]})
    image = next(block for block in result.content if block.type == "image")
    assert image.mime_type == "image/png"


async def test_an_exception_is_an_error_with_the_authors_lines_and_the_server_lives(server: Server) -> None:
    code = "def broken(n: int) -> float:\n    return 1 / n\n"
    server.api("POST", "/api/mcp/tools", json={"name": "broken", "code": code}).raise_for_status()
    async with sdk_sse(server) as (client, _):
        result = await client.call_tool("broken", {"n": 0})
        assert result.is_error
        assert "ZeroDivisionError" in text_of(result)
        assert not (await client.call_tool("broken", {"n": 1})).is_error


async def test_a_tool_that_hangs_is_ended_by_its_limit(server: Server) -> None:
    code = "import time\n\ndef hang() -> None:\n    time.sleep(600)\n"
    body = {"name": "hang", "code": code, "limits": {"timeout": "500ms"}}
    server.api("POST", "/api/mcp/tools", json=body).raise_for_status()
    async with sdk_sse(server) as (client, _):
        result = await client.call_tool("hang", {})
    assert result.is_error
    assert "500 ms" in text_of(result) or "0.5" in text_of(result)
    entry = server.api("GET", "/api/mcp/audit/logs", params={"tool": "hang", "event": "tool.call"}).json()["entries"][0]
    assert entry["outcome"] == "timeout"


async def test_a_client_that_leaves_ends_its_call(server: Server) -> None:
    code = "import time\n\ndef slow() -> None:\n    time.sleep(20)\n"
    server.api("POST", "/api/mcp/tools", json={"name": "slow", "code": code}).raise_for_status()
    async with sdk_sse(server) as (client, _):
        call = asyncio.ensure_future(client.call_tool("slow", {}))
        await asyncio.sleep(0.5)
        call.cancel()
        await asyncio.wait([call])
    deadline = asyncio.get_running_loop().time() + 10
    while True:
        entries = server.api("GET", "/api/mcp/audit/logs", params={"tool": "slow", "event": "tool.call"}).json()[
            "entries"
        ]
        if entries:
            break
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)
    assert entries[0]["outcome"] == "cancelled"
