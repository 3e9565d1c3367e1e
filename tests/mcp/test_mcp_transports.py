"""What a client sees over each transport and in each era of the protocol."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import fastmcp
import mcp
import pytest
from fastmcp.exceptions import ToolError
from mcp.client.sse import sse_client
from mcp.shared.exceptions import MCPError
from mcp_world import NUMBERS, World, add, answer, served

from portoser.audit.entry import Outcome
from portoser.catalog.caller import Caller
from portoser.catalog.revision import Annotations
from portoser.invocation import Invocation

Connect = Callable[[World], AbstractAsyncContextManager[mcp.Client]]


@asynccontextmanager
async def over_sse(world: World) -> AsyncIterator[mcp.Client]:
    async with mcp.Client(sse_client(world.sse)) as client:
        yield client


@asynccontextmanager
async def over_http_with_a_session(world: World) -> AsyncIterator[mcp.Client]:
    async with mcp.Client(world.http, mode="legacy") as client:
        yield client


@asynccontextmanager
async def over_http_without(world: World) -> AsyncIterator[mcp.Client]:
    async with mcp.Client(world.http) as client:
        yield client


EVERY_WAY = pytest.mark.parametrize("connect", [over_sse, over_http_with_a_session, over_http_without])


@EVERY_WAY
async def test_a_tool_is_listed_with_what_its_author_declared(world: World, connect: Connect) -> None:
    async with connect(world) as client:
        [tool] = (await client.list_tools()).tools
    assert tool.name == "add"
    assert tool.title == "Add"
    assert tool.description == "Add two numbers."
    assert tool.input_schema == NUMBERS
    assert tool.annotations is not None
    assert tool.annotations.destructive_hint is True


@EVERY_WAY
async def test_a_call_answers_with_text_and_structure(world: World, connect: Connect) -> None:
    async with connect(world) as client:
        result = await client.call_tool("add", {"a": 2, "b": 3})
    assert result.content[0].model_dump(include={"type", "text"}) == {"type": "text", "text": "5"}
    assert result.structured_content == {"result": 5}
    assert not result.is_error


@EVERY_WAY
async def test_a_call_names_its_caller_with_client_and_session(world: World, connect: Connect) -> None:
    async with connect(world) as client:
        await client.call_tool("add", {"a": 1, "b": 1})
        await client.call_tool("add", {"a": 1, "b": 1})
    callers = [caller for _, _, caller in world.invocation.calls]
    assert all(caller.agent and caller.agent.startswith("mcp/") for caller in callers)
    assert callers[0].session == callers[1].session
    assert bool(callers[0].session) == (connect is not over_http_without)


@EVERY_WAY
async def test_an_image_arrives_as_an_image(world: World, connect: Connect) -> None:
    async def draw(arguments: dict[str, Any], events: object) -> Any:
        return answer("add", content=[{"type": "image", "data": "aGk=", "mimeType": "image/png"}])

    world.invocation.bodies["add"] = draw
    async with connect(world) as client:
        [block] = (await client.call_tool("add", {"a": 1, "b": 1})).content
    assert isinstance(block, mcp.types.ImageContent)
    assert (block.data, block.mime_type) == ("aGk=", "image/png")


@EVERY_WAY
async def test_a_tool_that_fails_tells_the_model_why(world: World, connect: Connect) -> None:
    async def fail(arguments: dict[str, Any], events: object) -> Any:
        return answer("add", Outcome.ERROR, reason="tool_error", message="Numbers are out today.")

    world.invocation.bodies["add"] = fail
    async with connect(world) as client:
        result = await client.call_tool("add", {"a": 1, "b": 1})
    assert result.is_error
    assert result.content[0].model_dump()["text"] == "Numbers are out today."


@EVERY_WAY
async def test_a_tool_that_is_not_there_is_an_error_of_the_request(world: World, connect: Connect) -> None:
    async with connect(world) as client:
        with pytest.raises(MCPError, match="nothere") as refused:
            await client.call_tool("nothere", {})
    assert refused.value.code == mcp.types.INVALID_PARAMS
    assert refused.value.data == {"tool": "nothere", "reason": "unknown_tool"}


@EVERY_WAY
async def test_only_what_is_served_is_claimed(world: World, connect: Connect) -> None:
    async with connect(world) as client:
        claimed = client.server_capabilities
        with pytest.raises(MCPError) as refused:
            await client.list_prompts()
    assert claimed is not None
    assert claimed.model_dump(exclude_none=True) == {"tools": {"list_changed": True}, "logging": {}}
    assert refused.value.code == mcp.types.METHOD_NOT_FOUND


async def test_the_event_stream_speaks_the_handshake_era_even_to_a_client_that_asks_for_the_newest(
    world: World,
) -> None:
    async with mcp.Client(sse_client(world.sse), mode="auto") as client:
        assert client.protocol_version == "2025-11-25"
    async with mcp.Client(world.http, mode="auto") as client:
        assert client.protocol_version == "2026-07-28"


@pytest.mark.parametrize("path", ["/mcp/sse", "/mcp", "/mcp/"])
async def test_fastmcps_client_lists_calls_and_unwraps(world: World, path: str) -> None:
    wrapped = {"type": "object", "properties": {"result": {"type": "integer"}}, "x-fastmcp-wrap-result": True}
    world.follower.swap(served("add", input_schema=NUMBERS, output_schema=wrapped))
    async with fastmcp.Client(world.url + path) as client:
        assert [tool.name for tool in await client.list_tools()] == ["add"]
        assert (await client.call_tool("add", {"a": 40, "b": 2})).data == 42


async def test_fastmcps_client_raises_the_tools_message(world: World) -> None:
    async def fail(arguments: dict[str, Any], events: object) -> Any:
        return answer("add", Outcome.TIMEOUT, reason="timeout", message="It took longer than 30 s.")

    world.invocation.bodies["add"] = fail
    async with fastmcp.Client(world.http) as client:
        with pytest.raises(ToolError, match="longer than 30 s"):
            await client.call_tool("add", {"a": 1, "b": 1})


async def test_fastmcps_own_interface_lists_and_runs_the_same_tools(world: World) -> None:
    from portoser.mcp.callers import acting_as

    operator = Caller(subject="olga", groups=frozenset({"operator"}))
    world.follower.swap(
        served("add", input_schema=NUMBERS, permissions=("operator",), annotations=Annotations(read_only=True)),
        served("other", permissions=("nobody",)),
    )
    world.invocation.bodies["add"] = add
    with acting_as(operator):
        [tool] = await world.mcp.fastmcp.list_tools()
        assert tool.annotations is not None
        assert (tool.name, tool.annotations.read_only_hint) == ("add", True)
        assert await world.mcp.fastmcp.get_tool("other") is None
        result = await world.mcp.fastmcp.call_tool("add", {"a": 1, "b": 2})
    assert result.structured_content == {"result": 3}


async def test_fastmcps_own_interface_says_why_a_tool_may_not_run(world: World) -> None:
    from portoser.mcp.callers import acting_as
    from portoser.mcp.provider import SnapshotTool

    dana = Caller(subject="dana", groups=frozenset({"dev"}))
    only_operators = served("op", permissions=("operator",))
    world.follower.swap(only_operators)
    tool = SnapshotTool.of(only_operators, cast("Invocation", world.invocation))
    with acting_as(dana), pytest.raises(ToolError, match="op"):
        await tool.run({})
