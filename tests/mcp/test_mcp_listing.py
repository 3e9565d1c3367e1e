"""`tools/list` in pages, as each caller may see it."""

from typing import Any

import httpx
import mcp
import pytest
from mcp.client.sse import sse_client
from mcp.shared.exceptions import MCPError
from mcp_world import NUMBERS, World, served

from portoser.catalog.caller import Caller
from portoser.catalog.revision import JsonSchema
from portoser.mcp.listing import PageCache


async def every_name(client: mcp.Client) -> list[str]:
    names: list[str] = []
    cursor = None
    while True:
        page = await client.list_tools(cursor=cursor)
        names += [tool.name for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            return names


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 25])
async def test_pages_together_hold_every_tool_once_and_in_order(mode: str, count: int) -> None:
    names = [f"tool{number:03}" for number in range(count)]
    world = World(*(served(name) for name in names), page_size=10)
    async with world.serving(), mcp.Client(world.http, mode=mode) as client:
        assert await every_name(client) == names
        assert await every_name(client) == names  # and again, from the kept pages


async def test_a_change_between_two_pages_neither_repeats_nor_skips_a_tool() -> None:
    world = World(*(served(f"t{number}") for number in range(6)), page_size=3)
    async with world.serving(), mcp.Client(world.http) as client:
        first = await client.list_tools()
        world.follower.swap(*(served(f"t{number}") for number in (0, 3, 4, 5, 9)), served("a"))
        second = await client.list_tools(cursor=first.next_cursor)
    assert [tool.name for tool in second.tools] == ["t3", "t4", "t5"]


async def test_a_cursor_that_is_not_ours_is_refused(world: World) -> None:
    async with mcp.Client(world.http) as client:
        for cursor in ("nonsense", "bm9uc2Vuc2U=", "e30="):
            with pytest.raises(MCPError, match="cursor"):
                await client.list_tools(cursor=cursor)


async def test_a_new_generation_is_listed_anew(world: World) -> None:
    async with mcp.Client(world.http) as client:
        before = (await client.list_tools()).tools
        world.follower.swap(served("add", description="Better."))
        after = (await client.list_tools()).tools
    assert [before[0].description, after[0].description] == ["Add two numbers.", "Better."]


async def test_each_caller_lists_what_it_may_call(world: World) -> None:
    world.callers["olga"] = Caller(subject="olga", groups=frozenset({"operator"}))
    world.callers["dana"] = Caller(subject="dana", groups=frozenset({"dev"}))
    world.callers["ada"] = Caller(subject="ada", groups=frozenset({"admins"}))
    world.follower.swap(
        served("op", permissions=("operator",)),
        served("dev", permissions=("dev",)),
        served("off", permissions=("dev",), enabled=False),
        served("unnamed"),
    )
    seen = {}
    for name in ("olga", "dana", "ada"):
        async with mcp.Client(sse_client(world.sse, headers={"Authorization": f"Bearer {name}"})) as client:
            seen[name] = await every_name(client)
            for tool in ("op", "dev"):
                if tool not in seen[name]:
                    with pytest.raises(MCPError):
                        await client.call_tool(tool, {})
    assert seen == {"olga": ["op"], "dana": ["dev"], "ada": ["dev", "op", "unnamed"]}


async def test_one_tool_that_an_older_client_cannot_read_does_not_cost_it_the_page(world: World) -> None:
    listing: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    world.follower.swap(served("add", input_schema=NUMBERS), served("names", output_schema=listing))
    async with mcp.Client(world.http, mode="legacy") as client:
        old = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
    async with mcp.Client(world.http) as client:
        new = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
    assert old == {"add": None, "names": None}
    assert new == {"add": None, "names": listing}


async def test_a_schema_that_no_version_can_carry_is_left_out_and_the_rest_listed(world: World) -> None:
    world.follower.swap(served("add"), served("odd", input_schema={"type": "string"}))
    async with mcp.Client(world.http) as client:
        assert await every_name(client) == ["add"]


async def test_the_kept_pages_are_bounded(world: World) -> None:
    [cache] = [each for each in world.mcp.fastmcp._mcp_server.middleware if isinstance(each, PageCache)]
    cache._max_tools = 3
    async with mcp.Client(world.http) as client:
        for number in range(5):
            world.callers[f"c{number}"] = Caller(subject="c", groups=frozenset({f"g{number}"}))
        await client.list_tools()
        for number in range(5):
            token = {"Authorization": f"Bearer c{number}"}
            async with mcp.Client(sse_client(world.sse, headers=token)) as other:
                await other.list_tools()
    assert len(cache._pages) <= 3


async def test_a_kept_page_holds_the_schemas_of_the_snapshot_and_no_copies(world: World) -> None:
    world.follower.swap(served("add", input_schema=NUMBERS))
    [cache] = [each for each in world.mcp.fastmcp._mcp_server.middleware if isinstance(each, PageCache)]
    async with mcp.Client(world.http) as client:
        listed = await client.list_tools()
    [page] = cache._pages.values()
    revision = world.follower.snapshot.tools["add"].registered.revision
    assert page["tools"][0]["inputSchema"] is revision.input_schema
    assert listed.tools[0].input_schema == NUMBERS


async def test_a_header_that_contradicts_its_argument_is_refused_and_unseen_tools_stay_unseen(world: World) -> None:
    import httpx

    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    world.callers["dana"] = Caller(subject="dana", groups=frozenset({"dev"}))
    world.callers["olga"] = Caller(subject="olga", groups=frozenset({"operator"}))
    world.follower.swap(served("add", input_schema=schema, permissions=("dev",)))
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "add",
            "arguments": {"region": "eu"},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    }
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "add",
        "Mcp-Param-Region": "us",
    }
    async with httpx.AsyncClient() as http:
        may = await http.post(world.http, json=body, headers={**headers, "Authorization": "Bearer dana"})
        may_not = await http.post(world.http, json=body, headers={**headers, "Authorization": "Bearer olga"})
    assert "header" in may.json()["error"]["message"].lower()
    assert may_not.json()["error"]["data"]["reason"] == "forbidden"


def nested(depth: int) -> JsonSchema:
    schema: JsonSchema = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
async def test_a_schema_too_deep_to_be_written_costs_nobody_the_page(version: str) -> None:
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": version,
        "Mcp-Method": "tools/list",
    }
    meta = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    world = World()
    async with world.serving(), httpx.AsyncClient(base_url=world.url, headers=headers) as http:
        if version == "2025-11-25":
            opened = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})
            http.headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
        ever_listed = set()
        # Around the depth at which writing begins to fail, and far beyond it.
        for depth in (60, *range(118, 130), 255, 400):
            world.follower.swap(
                served("add"), served("deep", input_schema=nested(depth)), served("out", output_schema=nested(depth))
            )
            listed = await http.post(
                "/mcp", json={"jsonrpc": "2.0", "id": depth, "method": "tools/list", "params": {"_meta": meta}}
            )
            assert listed.status_code == 200
            assert '"add"' in listed.text
            assert '"out"' in listed.text
            ever_listed.add('"deep"' in listed.text)
    assert ever_listed == {True, False}
