"""Connected clients are told that their tools changed."""

import asyncio
import contextlib
from typing import Any

import fastmcp
import mcp
import pytest
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_world import NUMBERS, World, served, until

from portoser.catalog.caller import Caller


class Heard:
    """Counts the notifications that a client's message handler gets."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, message: Any) -> None:
        if isinstance(message, mcp.types.ToolListChangedNotification):
            self.count += 1


async def test_a_session_over_sse_is_told_and_then_sees_the_new_tool(world: World) -> None:
    heard = Heard()
    async with mcp.Client(sse_client(world.sse), message_handler=heard) as client:
        await until(lambda: world.mcp.status().subscribers == 1)
        world.follower.swap(served("add", input_schema=NUMBERS), served("sub", input_schema=NUMBERS))
        await until(lambda: heard.count == 1)
        assert [tool.name for tool in (await client.list_tools()).tools] == ["add", "sub"]


async def test_a_session_over_http_is_told_once_its_stream_is_open(world: World) -> None:
    heard = Heard()
    async with mcp.Client(world.http, mode="legacy", message_handler=heard) as client:
        await until(lambda: world.mcp.status().subscribers == 1)
        for number in range(20):  # the client opens its stream when it likes; nothing says when it has
            world.follower.swap(served(f"sub{number}"))
            with contextlib.suppress(TimeoutError):
                await until(lambda: heard.count > 0, seconds=0.5)
                break
        assert heard.count == 1
        assert [tool.name for tool in (await client.list_tools()).tools] == [f"sub{number}"]


async def test_a_listening_client_is_told_on_its_stream(world: World) -> None:
    async with mcp.Client(world.http) as client, client.listen(tools_list_changed=True) as events:
        world.follower.swap(served("sub"))
        async with asyncio.timeout(10):
            event = await anext(aiter(events))
        assert type(event).__name__ == "ToolsListChanged"
        assert [tool.name for tool in (await client.list_tools()).tools] == ["sub"]


async def test_fastmcps_client_over_sse_is_told(world: World) -> None:
    heard = Heard()
    async with fastmcp.Client(world.sse, message_handler=heard) as client:
        await until(lambda: world.mcp.status().subscribers == 1)
        world.follower.swap()
        await until(lambda: heard.count == 1)
        assert await client.list_tools() == []


async def test_only_clients_whose_listing_changed_are_told(world: World) -> None:
    world.callers["olga"] = Caller(subject="olga", groups=frozenset({"operator"}))
    world.callers["dana"] = Caller(subject="dana", groups=frozenset({"dev"}))
    world.follower.swap(served("op", permissions=("operator",)), served("dev", permissions=("dev",)))
    olga, dana = Heard(), Heard()
    async with (
        mcp.Client(sse_client(world.sse, headers={"Authorization": "Bearer olga"}), message_handler=olga),
        mcp.Client(sse_client(world.sse, headers={"Authorization": "Bearer dana"}), message_handler=dana) as other,
    ):
        await until(lambda: world.mcp.status().subscribers == 2)
        world.follower.swap(
            served("op", description="Changed.", permissions=("operator",)), served("dev", permissions=("dev",))
        )
        await until(lambda: olga.count == 1)
        await other.list_tools()
        assert dana.count == 0
        world.follower.swap(
            served("op", description="Changed.", permissions=("operator",)),
            served("dev", permissions=("dev",)),
            served("both", permissions=("dev", "operator")),
        )
        await until(lambda: (olga.count, dana.count) == (2, 1))


async def test_a_listening_client_is_not_told_of_tools_it_may_not_see(world: World) -> None:
    import httpx2

    world.callers["dana"] = Caller(subject="dana", groups=frozenset({"dev"}))
    world.follower.swap(served("dev", permissions=("dev",)))
    headers = {"Authorization": "Bearer dana"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        mcp.Client(streamable_http_client(world.http, http_client=http)) as client,
        client.listen(tools_list_changed=True) as events,
    ):
        stream = aiter(events)
        world.follower.swap(served("dev", permissions=("dev",)), served("op", permissions=("operator",)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(stream)
        world.follower.swap(served("dev2", permissions=("dev",)))
        async with asyncio.timeout(10):
            await anext(stream)


async def test_a_change_of_code_alone_tells_nobody(world: World) -> None:
    heard = Heard()
    async with mcp.Client(sse_client(world.sse), message_handler=heard) as client:
        await until(lambda: world.mcp.status().subscribers == 1)
        world.follower.swap(served("add", description="Add two numbers.", input_schema=NUMBERS))
        await client.list_tools()
        assert heard.count == 0


async def test_many_clients_are_all_told(world: World) -> None:
    heard = [Heard() for _ in range(30)]

    async def stay(one: Heard) -> None:
        async with mcp.Client(sse_client(world.sse), message_handler=one):
            await until(lambda: world.mcp.status().subscribers == len(heard), seconds=30)
            await until(lambda: one.count == 1, seconds=30)
            await until(lambda: all(each.count == 1 for each in heard), seconds=30)

    async with asyncio.TaskGroup() as tasks:
        for one in heard:
            tasks.create_task(stay(one))
        await until(lambda: world.mcp.status().subscribers == len(heard), seconds=30)
        world.follower.swap()


@pytest.mark.parametrize("transport", ["sse", "http"])
async def test_a_client_that_left_is_forgotten(world: World, transport: str) -> None:
    target: Any = sse_client(world.sse) if transport == "sse" else world.http
    async with mcp.Client(target, mode="legacy"):
        await until(lambda: world.mcp.status().subscribers == 1)
    await until(lambda: world.mcp.status().subscribers == 0)
    assert world.mcp.status().sse_sessions == 0


async def test_a_listener_that_left_is_forgotten(world: World) -> None:
    async with mcp.Client(world.http) as client:
        async with client.listen(tools_list_changed=True):
            assert world.mcp.status().subscribers == 1
        await until(lambda: world.mcp.status().subscribers == 0)


async def test_a_bus_event_reaches_every_listener(world: World) -> None:
    from mcp.server.subscriptions import ToolsListChanged

    async with mcp.Client(world.http) as client, client.listen(tools_list_changed=True) as events:
        await world.mcp._subscribers.publish(ToolsListChanged())
        async with asyncio.timeout(10):
            await anext(aiter(events))
