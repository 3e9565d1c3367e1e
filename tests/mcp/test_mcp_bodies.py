"""What a client may send at once: in bytes, in values, in depth; and what it is answered where it sends more."""

import json
from typing import Any

import httpx
import mcp
import pytest
from mcp.client.sse import sse_client
from mcp_world import World, answer, served

WAYS = ["sse", "legacy", "auto"]


async def count(arguments: dict[str, Any], events: Any) -> Any:
    return answer("count", text=str(len(arguments["x"])))


def connected(world: World, way: str) -> mcp.Client:
    world.follower.swap(served("count"))
    world.invocation.bodies["count"] = count
    target: Any = sse_client(world.sse) if way == "sse" else world.http
    return mcp.Client(target, mode="legacy" if way == "sse" else way)


@pytest.mark.parametrize("way", WAYS)
async def test_arguments_of_too_many_values_are_refused_and_the_next_call_works(world: World, way: str) -> None:
    async with connected(world, way) as client:
        with pytest.raises(mcp.MCPError, match="more than 100,000 values"):
            await client.call_tool("count", {"x": [[]] * 300_000})
        result = await client.call_tool("count", {"x": [1] * 90_000})
        assert result.content[0].model_dump()["text"] == "90000"
    assert len(world.invocation.calls) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_arguments_that_are_one_long_text_arrive(world: World, way: str) -> None:
    text = 'a, "b": [{' * 200_000
    async with connected(world, way) as client:
        result = await client.call_tool("count", {"x": text})
    assert result.content[0].model_dump()["text"] == str(len(text))


@pytest.mark.parametrize("headers", [{}, {"Mcp-Method": "subscriptions/listen", "MCP-Protocol-Version": "2026-07-28"}])
async def test_a_body_without_a_length_is_looked_at_too(world: World, headers: dict[str, str]) -> None:
    async def pieces() -> Any:
        yield b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "count", "arguments": {"x": ['
        for _ in range(30):
            yield b"[]," * 10_000
        yield b"1]}}}"

    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **headers}
    async with httpx.AsyncClient(timeout=20) as http:
        refused = await http.post(world.http, content=pieces(), headers=headers)
    assert refused.status_code == 400
    assert refused.json()["id"] == 7
    assert "100,000 values" in refused.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"[" * 3_000_000, b'{"a":' * 500_000, b'"' + b'\\"' * 1_500_000, b"1," * 1_000_000])
async def test_nonsense_is_refused_and_the_server_goes_on(world: World, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient(timeout=20) as http:
        for more in ({}, {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "count"}):
            refused = await http.post(world.http, content=body, headers={**headers, **more})
            assert refused.status_code == 400
            assert "error" in refused.json()
    async with connected(world, "auto") as client:
        assert not (await client.call_tool("count", {"x": []})).is_error


@pytest.mark.parametrize("way", WAYS)
async def test_deep_arguments_are_answered_one_way_or_the_other(world: World, way: str) -> None:
    deep: Any = []
    for _ in range(150):
        deep = [deep]
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    async with connected(world, way) as client:
        result = await client.call_tool("count", {"x": deep})
        assert result.content[0].model_dump()["text"] == "1"
    if way == "sse":
        return
    if way == "auto":
        headers |= {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "count"}
    very_deep = "[" * 20_000 + "]" * 20_000
    call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "count", "arguments": 0}})
    async with httpx.AsyncClient(timeout=20) as http:
        refused = await http.post(world.http, content=call.replace("0}}", very_deep + "}}"), headers=headers)
    assert refused.status_code == 400
