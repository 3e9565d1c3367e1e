"""Whose session it is, how long it lasts, and what else is refused at the door."""

import asyncio
import time
from typing import Any

import httpx
import mcp
import pytest
import structlog
from mcp.client.sse import sse_client
from mcp_world import World, add, answer, served, until

from portoser.catalog.caller import Caller
from portoser.catalog.errors import Denied
from portoser.mcp.callers import current_caller

HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
BOTH = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
def people(world: World) -> World:
    world.callers["olga"] = Caller(subject="olga", client="cursor", groups=frozenset({"operator"}))
    world.callers["dana"] = Caller(subject="dana", client="cursor", groups=frozenset({"dev"}))
    return world


async def endpoint(stream: httpx.Response) -> tuple[str, Any]:
    """Where to post, and the rest of the stream; letting go of the rest closes it."""
    lines = stream.aiter_lines()
    await anext(lines)
    return (await anext(lines)).removeprefix("data: "), lines


async def test_another_callers_event_stream_looks_as_if_it_were_not_there(people: World) -> None:
    async with (
        httpx.AsyncClient(base_url=people.url) as http,
        http.stream("GET", "/mcp/sse", headers={"Authorization": "Bearer olga"}) as stream,
    ):
        path, _lines = await endpoint(stream)
        theirs = await http.post(path, json=HELLO, headers={"Authorization": "Bearer dana"})
        nobodys = await http.post("/mcp/messages/?session_id=0", json=HELLO, headers={"Authorization": "Bearer dana"})
        mine = await http.post(path, json=HELLO, headers={"Authorization": "Bearer olga"})
    assert (theirs.status_code, theirs.text) == (nobodys.status_code, nobodys.text) == (404, nobodys.text)
    assert mine.status_code == 202


async def test_another_callers_http_session_looks_as_if_it_were_not_there(people: World) -> None:
    async with httpx.AsyncClient(base_url=people.url, headers=BOTH) as http:
        opened = await http.post("/mcp", json=HELLO, headers={"Authorization": "Bearer olga"})
        session = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
        theirs = await http.post("/mcp", json=LIST, headers={"Authorization": "Bearer dana", **session})
        mine = await http.post("/mcp", json=LIST, headers={"Authorization": "Bearer olga", **session})
    assert (theirs.status_code, mine.status_code) == (404, 200)


async def test_a_message_is_decided_by_the_groups_it_came_with(people: World) -> None:
    people.follower.swap(served("add", permissions=("operator",)))
    people.invocation.bodies["add"] = add
    async with mcp.Client(sse_client(people.sse, headers={"Authorization": "Bearer olga"})) as client:
        assert len((await client.list_tools()).tools) == 1
        people.callers["olga"] = Caller(subject="olga", client="cursor", groups=frozenset())
        assert (await client.list_tools()).tools == []


async def test_the_streams_url_narrows_its_messages(people: World) -> None:
    people.follower.swap(
        served("a", permissions=("operator",), group="one"), served("b", permissions=("operator",), group="two")
    )
    wide = people.callers["olga"]
    people.callers["narrow"] = Caller(
        subject="olga", client="cursor", groups=wide.groups, only_groups=frozenset({"two"})
    )

    async with (
        httpx.AsyncClient(base_url=people.url) as http,
        http.stream("GET", "/mcp/sse", headers={"Authorization": "Bearer narrow"}) as stream,
    ):
        path, lines = await endpoint(stream)
        for body in (HELLO, LIST):
            await http.post(path, json=body, headers={"Authorization": "Bearer olga"})
        data = [line async for line in _until_id(lines, 1)]
    assert '"b"' in data[-1]
    assert '"name":"a"' not in data[-1]


async def _until_id(lines: Any, wanted: int) -> Any:
    async for line in lines:
        if line.startswith("data: "):
            yield line
            if f'"id":{wanted}' in line:
                return


@pytest.mark.parametrize("path", ["/mcp/sse", "/mcp"])
async def test_a_stream_ends_with_its_token(path: str) -> None:
    world = World(served("add"), expiry_grace=0.2)
    world.callers["olga"] = Caller(subject="olga", expires_at=time.time() + 0.3)
    headers = {"Authorization": "Bearer olga", **BOTH}
    async with world.serving(), httpx.AsyncClient(base_url=world.url, headers=headers, timeout=10) as http:
        if path == "/mcp":
            opened = await http.post("/mcp", json=HELLO)
            http.headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
        async with asyncio.timeout(10), http.stream("GET", path) as stream:
            assert stream.status_code == 200
            async for _ in stream.aiter_bytes():
                pass
    assert world.mcp.status().sse_sessions == 0


async def test_a_listening_client_is_let_go_when_its_token_ends() -> None:
    world = World(served("add"), expiry_grace=0.1)
    world.callers["olga"] = Caller(subject="olga", expires_at=time.time() + 0.3)
    headers = {
        "Authorization": "Bearer olga",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "subscriptions/listen",
        **BOTH,
    }
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    listen = {
        "jsonrpc": "2.0",
        "id": "l",
        "method": "subscriptions/listen",
        "params": {"notifications": {"toolsListChanged": True}, "_meta": meta},
    }
    async with (
        world.serving(),
        httpx.AsyncClient(base_url=world.url, headers=headers, timeout=10) as http,
        asyncio.timeout(10),
        http.stream("POST", "/mcp", json=listen) as stream,
    ):
        text = "".join([chunk async for chunk in stream.aiter_text()])
    assert "acknowledged" in text
    assert world.mcp.status().subscribers == 0


async def test_a_server_that_stops_ends_its_streams_and_takes_no_new_ones(world: World) -> None:
    async with (
        mcp.Client(world.http) as listener,
        httpx.AsyncClient(base_url=world.url) as http,
        http.stream("GET", "/mcp/sse") as stream,
    ):
        async with listener.listen(tools_list_changed=True) as events:
            world.mcp.drain()
            assert [event async for event in events] == []  # the stream ended in order, else this raises
        async for _ in stream.aiter_bytes():
            pass
        assert (await http.get("/mcp/sse")).status_code == 503
    await until(lambda: world.mcp.status().sse_sessions == 0)


async def test_sessions_are_bounded() -> None:
    world = World(max_sessions=1)
    async with world.serving(), httpx.AsyncClient(base_url=world.url) as http, http.stream("GET", "/mcp/sse") as first:
        assert first.status_code == 200
        assert (await http.get("/mcp/sse")).status_code == 503


async def test_what_is_not_a_message_is_refused(world: World) -> None:
    async with httpx.AsyncClient(base_url=world.url) as http, http.stream("GET", "/mcp/sse") as stream:
        path, _lines = await endpoint(stream)
        statuses = [
            (await http.post(path, content="{}", headers={"Content-Type": "application/json"})).status_code,
            (await http.post(path, content="{", headers={"Content-Type": "application/json"})).status_code,
            (await http.post(path, content="[]", headers={"Content-Type": "text/plain"})).status_code,
            (await http.post(path, content=b"x" * 5_000_000, headers={"Content-Type": "application/json"})).status_code,
            (await http.get(path)).status_code,
            (await http.post("/mcp/sse", json=HELLO)).status_code,
        ]
    assert statuses == [400, 400, 415, 413, 405, 405]


async def test_an_idle_stream_is_kept_alive() -> None:
    world = World()
    world.mcp._sse._ping_seconds = 0.05
    async with world.serving(), httpx.AsyncClient(base_url=world.url) as http, http.stream("GET", "/mcp/sse") as stream:
        async for line in stream.aiter_lines():
            if line.startswith(": ping"):
                return


async def test_a_client_that_never_reads_loses_its_session_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portoser.mcp.streams.STALL_SECONDS", 0.1)
    big = "x" * 1_000_000

    async def shout(arguments: dict[str, Any], events: Any) -> Any:
        return answer("shout", text=big)

    world.follower.swap(served("shout"))
    world.invocation.bodies["shout"] = shout
    reader, writer = await asyncio.open_connection("127.0.0.1", int(world.url.rpartition(":")[2]), limit=1024)
    writer.write(b"GET /mcp/sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while not (line := await reader.readline()).startswith(b"data: "):
        pass
    path = line.removeprefix(b"data: ").strip().decode()
    call = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "shout", "arguments": {}}}
    async with httpx.AsyncClient(base_url=world.url, timeout=30) as http:
        await http.post(path, json=HELLO)
        statuses = set()
        for number in range(1, 400):
            statuses.add((await http.post(path, json={**call, "id": number})).status_code)
            if 404 in statuses:
                break
        await until(lambda: world.mcp.status().sse_sessions == 0)
    writer.close()
    async with mcp.Client(sse_client(world.sse)) as other:
        assert len((await other.list_tools()).tools) == 1


async def test_a_client_that_asks_for_much_and_never_reads_costs_little_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portoser.mcp.streams.OUTBOX_BYTES", 1_000_000)
    monkeypatch.setattr("portoser.mcp.streams.UNREAD_BYTES", 5_000_000)

    async def shout(arguments: dict[str, Any], events: Any) -> Any:
        return answer("shout", text="x" * 1_000_000)

    world.follower.swap(served("shout"))
    world.invocation.bodies["shout"] = shout
    reader, writer = await asyncio.open_connection("127.0.0.1", int(world.url.rpartition(":")[2]), limit=1024)
    writer.write(b"GET /mcp/sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while not (line := await reader.readline()).startswith(b"data: "):
        pass
    path = line.removeprefix(b"data: ").strip().decode()
    call = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "shout", "arguments": {}}}
    with structlog.testing.capture_logs() as logs:
        async with httpx.AsyncClient(base_url=world.url, timeout=30) as http:
            await http.post(path, json=HELLO)
            for number in range(1, 100):
                if (await http.post(path, json={**call, "id": number})).status_code == 404:
                    break
            else:
                pytest.fail("the session went on")
        await until(lambda: world.mcp.status().sse_sessions == 0)
    writer.close()
    [told] = [each for each in logs if each["event"] == "mcp.client_stalled"]
    assert told["subject"] == "anonymous"
    assert 3_000_000 < told["unread_bytes"] <= 5_000_000


async def test_a_client_that_never_reads_what_a_tool_logs_loses_its_session_and_the_call_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portoser.mcp.streams.STALL_SECONDS", 0.1)

    async def chatter(arguments: dict[str, Any], events: Any) -> Any:
        try:
            while True:
                events.log("info", "x" * 20_000, None)
                await asyncio.sleep(0.0001)
        finally:
            world.invocation.cancelled.set()

    world.follower.swap(served("chatter"))
    world.invocation.bodies["chatter"] = chatter
    reader, writer = await asyncio.open_connection("127.0.0.1", int(world.url.rpartition(":")[2]), limit=1024)
    writer.write(b"GET /mcp/sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while not (line := await reader.readline()).startswith(b"data: "):
        pass
    path = line.removeprefix(b"data: ").strip().decode()
    with structlog.testing.capture_logs() as logs:
        async with httpx.AsyncClient(base_url=world.url, timeout=30) as http:
            await http.post(path, json=HELLO)
            await http.post(path, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
            params = {"name": "chatter", "arguments": {}}
            await http.post(path, json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        await asyncio.wait_for(world.invocation.cancelled.wait(), 20)
        await until(lambda: world.mcp.status().sse_sessions == 0)
    writer.close()
    [told] = [each for each in logs if each["event"] == "mcp.client_stalled"]
    assert told["unread_bytes"] < 20_000_000


@pytest.mark.parametrize("size", [10, 400_000])
async def test_a_slow_client_that_reads_gets_all_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("portoser.mcp.streams.OUTBOX_BYTES", 1_000_000)

    async def shout(arguments: dict[str, Any], events: Any) -> Any:
        return answer("shout", text="x" * size)

    world.follower.swap(served("shout"))
    world.invocation.bodies["shout"] = shout
    async with mcp.Client(sse_client(world.sse)) as client:
        results = await asyncio.gather(*(client.call_tool("shout", {}) for _ in range(20)))
    assert {len(result.content[0].model_dump()["text"]) for result in results} == {size}


async def test_a_server_that_is_not_running_says_so() -> None:
    world = World()
    async with world.serving():
        pass
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    await world.mcp._http({"type": "http", "method": "POST", "path": "/mcp", "headers": []}, receive, send)
    assert sent[0]["status"] == 503


async def test_a_stopped_server_can_serve_again() -> None:
    world = World(served("add"))
    for _ in range(2):
        async with world.serving(), mcp.Client(world.http) as client:
            assert len((await client.list_tools()).tools) == 1


def test_work_without_a_caller_is_refused() -> None:
    with pytest.raises(Denied, match="without a caller"):
        current_caller()
