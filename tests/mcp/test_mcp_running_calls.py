"""What happens while a call runs: progress, logs, cancellation, a client that leaves."""

import asyncio
import json
from typing import Any

import anyio
import httpx
import mcp
import pytest
from mcp.client.sse import sse_client
from mcp_world import World, answer, forever, served, until


async def say(arguments: dict[str, Any], events: Any) -> Any:
    events.log("info", "starting", None)
    await asyncio.sleep(0)
    events.progress(1, 2, "half")
    events.log("warning", "careful", {"left": 1})
    await asyncio.sleep(0.01)
    events.progress(2, 2, None)
    return answer("talk", text="done")


@pytest.mark.parametrize("way", ["sse", "legacy", "auto"])
async def test_progress_and_logs_arrive_in_order_and_before_the_result(world: World, way: str) -> None:
    world.follower.swap(served("talk"))
    world.invocation.bodies["talk"] = say
    heard: list[Any] = []

    async def logged(params: mcp.types.LoggingMessageNotificationParams) -> None:
        heard.append((params.level, params.data))

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    target: Any = sse_client(world.sse) if way == "sse" else world.http
    mode = "legacy" if way == "sse" else way
    async with mcp.Client(target, mode=mode, logging_callback=logged, log_level="info") as client:
        result = await client.call_tool("talk", {}, progress_callback=progressed)
        await until(lambda: len(heard) == 4)
    assert result.content[0].model_dump()["text"] == "done"
    logs = [each for each in heard if isinstance(each[0], str)]
    assert logs == [("info", "starting"), ("warning", {"message": "careful", "left": 1})]
    assert [each for each in heard if not isinstance(each[0], str)] == [(1, 2, "half"), (2, 2, None)]


async def test_a_client_of_the_newest_era_that_did_not_ask_for_logs_gets_none(world: World) -> None:
    world.follower.swap(served("talk"))
    world.invocation.bodies["talk"] = say
    heard: list[Any] = []

    async def logged(params: mcp.types.LoggingMessageNotificationParams) -> None:
        heard.append(params)

    async with mcp.Client(world.http, logging_callback=logged) as client:
        await client.call_tool("talk", {})
        await client.list_tools()
    assert heard == []


async def test_a_session_reads_logs_from_the_level_it_set(world: World) -> None:
    world.follower.swap(served("talk"))
    world.invocation.bodies["talk"] = say
    heard: list[str] = []

    async def logged(params: mcp.types.LoggingMessageNotificationParams) -> None:
        heard.append(params.level)

    async with mcp.Client(sse_client(world.sse), mode="legacy", logging_callback=logged) as client:
        with pytest.warns(UserWarning, match="logging"):
            await client.set_logging_level("warning")
        await client.call_tool("talk", {})
        await until(lambda: heard == ["warning"])


async def test_a_tool_that_logs_faster_than_its_client_reads_leaves_logs_out_and_says_so(world: World) -> None:
    async def shout(arguments: dict[str, Any], events: Any) -> Any:
        for number in range(10_000):
            events.log("info", f"{number}", None)
        return answer("talk", text="done")

    world.follower.swap(served("talk"))
    world.invocation.bodies["talk"] = shout
    heard: list[Any] = []

    async def logged(params: mcp.types.LoggingMessageNotificationParams) -> None:
        heard.append(params.data)

    async with mcp.Client(sse_client(world.sse), mode="legacy", logging_callback=logged) as client:
        await client.call_tool("talk", {})
        await until(lambda: bool(heard) and "left out" in str(heard[-1]))
    assert len(heard) < 500


@pytest.mark.parametrize("way", ["sse", "legacy", "auto"])
async def test_a_cancelled_call_is_cancelled(world: World, way: str) -> None:
    world.follower.swap(served("slow"))
    world.invocation.bodies["slow"] = forever
    target: Any = sse_client(world.sse) if way == "sse" else world.http
    async with mcp.Client(target, mode="legacy" if way == "sse" else way) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_tool, "slow", {})
        await asyncio.wait_for(world.invocation.started.wait(), 10)
        assert not world.invocation.cancelled.is_set()
        tasks.cancel_scope.cancel()
    await asyncio.wait_for(world.invocation.cancelled.wait(), 10)


async def test_the_end_of_an_event_stream_cancels_its_calls(world: World) -> None:
    world.follower.swap(served("slow"))
    world.invocation.bodies["slow"] = forever
    with anyio.CancelScope() as leave:
        async with mcp.Client(sse_client(world.sse)) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "slow", {})
            await asyncio.wait_for(world.invocation.started.wait(), 10)
            leave.cancel()
    await asyncio.wait_for(world.invocation.cancelled.wait(), 10)
    await until(lambda: world.mcp.status().sse_sessions == 0)


def message(method: str, *, id_: int | None = None, **params: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    return body if id_ is None else {**body, "id": id_}


async def test_a_dropped_post_of_a_session_cancels_nothing(world: World) -> None:
    world.follower.swap(served("slow"))
    world.invocation.bodies["slow"] = forever
    headers = {"Accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient(base_url=world.url, headers=headers, timeout=10) as http:
        hello = message(
            "initialize",
            id_=0,
            protocolVersion="2025-11-25",
            capabilities={},
            clientInfo={"name": "raw", "version": "1"},
        )
        opened = await http.post("/mcp", json=hello)
        http.headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
        await http.post("/mcp", json=message("notifications/initialized"))
        async with http.stream("POST", "/mcp", json=message("tools/call", id_=1, name="slow", arguments={})) as call:
            assert call.status_code == 200
            await asyncio.wait_for(world.invocation.started.wait(), 10)
        await http.post("/mcp", json=message("ping", id_=2))
        assert not world.invocation.cancelled.is_set()
        # The specification's way does.
        await http.post("/mcp", json=message("notifications/cancelled", requestId=1))
        await asyncio.wait_for(world.invocation.cancelled.wait(), 10)


async def test_a_stopping_server_answers_what_still_runs(world: World) -> None:
    world.follower.swap(served("slow"))
    world.invocation.bodies["slow"] = forever
    async with httpx.AsyncClient(base_url=world.url, timeout=10) as http, http.stream("GET", "/mcp/sse") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == "event: endpoint"
        path = (await anext(lines)).removeprefix("data: ")
        hello = message(
            "initialize", id_=0, protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "r", "version": "1"}
        )
        assert (await http.post(path, json=hello)).status_code == 202
        await http.post(path, json=message("notifications/initialized"))
        await http.post(path, json=message("tools/call", id_=1, name="slow", arguments={}))
        await asyncio.wait_for(world.invocation.started.wait(), 10)
        world.mcp.drain()
        answers = [json.loads(line[6:]) async for line in lines if line.startswith("data: ")]
    assert answers[-1]["id"] == 1
    assert answers[-1]["error"]["message"] == "Connection closed"
    assert world.invocation.cancelled.is_set()
