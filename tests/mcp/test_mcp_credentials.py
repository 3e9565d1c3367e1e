"""What becomes of connected clients when the token file changes, and how narrow a session stays."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import mcp
import pytest
import yaml
from mcp.client.sse import sse_client
from mcp.shared.exceptions import MCPError
from mcp_world import World, served, until

from portoser.catalog.caller import Caller
from portoser.identity.tokens import TokenFile, new_token

BOTH = {"Accept": "application/json, text/event-stream"}
HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
LISTEN = {
    "jsonrpc": "2.0",
    "id": "l",
    "method": "subscriptions/listen",
    "params": {
        "notifications": {"toolsListChanged": True},
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    },
}


class Tokens:
    """A token file that a test rewrites."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        self._rewrite()
        self.file = TokenFile(path)

    def put(self, name: str, *groups: str, **more: Any) -> str:
        """Give ``name`` a new token."""
        token, digest = new_token()
        self.entries[name] = {"name": name, "hash": digest, "groups": list(groups), **more}
        self._rewrite()
        self.file.look()
        return token

    def change(self, name: str, **changes: Any) -> None:
        self.entries[name].update(changes)
        self._rewrite()

    def remove(self, name: str) -> None:
        del self.entries[name]
        self._rewrite()

    def _rewrite(self) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(list(self.entries.values())))
        fresh.replace(self.path)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens.yml")


def world_of(tokens: Tokens) -> World:
    return World(
        served("dev", permissions=("dev",)),
        served("op", permissions=("operator",)),
        tokens=tokens.file,
        look_seconds=0.05,
        expiry_grace=0.1,
    )


class Heard:
    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, message: Any) -> None:
        if isinstance(message, mcp.types.ToolListChangedNotification):
            self.count += 1


@pytest.mark.parametrize("how", ["removed", "replaced", "expired", "renamed"])
@pytest.mark.parametrize("kind", ["sse", "get", "listen"])
async def test_a_stream_ends_when_its_token_is_taken_back(tokens: Tokens, kind: str, how: str) -> None:
    ann, bob = tokens.put("ann", "dev"), tokens.put("bob", "dev")
    world = world_of(tokens)

    async def ends(token: str, opened: asyncio.Event) -> None:
        headers = {"Authorization": f"Bearer {token}", **BOTH}
        method, path, body = "GET", "/mcp" if kind == "get" else "/mcp/sse", None
        if kind == "listen":
            headers |= {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"}
            method, path, body = "POST", "/mcp", LISTEN
        async with httpx.AsyncClient(base_url=world.url, headers=headers, timeout=30) as http:
            if kind == "get":
                http.headers["Mcp-Session-Id"] = (await http.post("/mcp", json=HELLO)).headers["mcp-session-id"]
            async with http.stream(method, path, json=body) as stream:
                assert stream.status_code == 200
                opened.set()
                async for _ in stream.aiter_bytes():
                    pass

    async with world.serving():
        opened = [asyncio.Event(), asyncio.Event()]
        anns = asyncio.create_task(ends(ann, opened[0]))
        bobs = asyncio.create_task(ends(bob, opened[1]))
        async with asyncio.timeout(10):
            for event in opened:
                await event.wait()
            match how:
                case "removed":
                    tokens.remove("ann")
                case "replaced":
                    tokens.change("ann", hash="sha256:" + "0" * 64)
                case "expired":
                    tokens.change("ann", expires="2020-01-31")
                case _:
                    tokens.change("ann", subject="somebody-else")
            await anns
        await asyncio.sleep(0.2)
        assert not bobs.done()
        bobs.cancel()


async def test_a_client_is_told_when_its_token_gains_or_loses_groups(tokens: Tokens) -> None:
    ann, bob = Heard(), Heard()
    tokens_of = {name: {"Authorization": f"Bearer {tokens.put(name, 'dev')}"} for name in ("ann", "bob")}
    world = world_of(tokens)
    async with (
        world.serving(),
        mcp.Client(sse_client(world.sse, headers=tokens_of["ann"]), message_handler=ann) as client,
        mcp.Client(sse_client(world.sse, headers=tokens_of["bob"]), message_handler=bob),
    ):
        await until(lambda: world.mcp.status().subscribers == 2)
        tokens.change("ann", groups=["dev", "operator"])
        await until(lambda: ann.count == 1)
        assert [tool.name for tool in (await client.list_tools()).tools] == ["dev", "op"]
        world.follower.swap(
            served("dev", permissions=("dev",)), served("op", permissions=("operator",), description="Other.")
        )
        await until(lambda: ann.count == 2)
        tokens.change("ann", groups=["dev"])
        await until(lambda: ann.count == 3)
        world.follower.swap(
            served("dev", permissions=("dev",)), served("op", permissions=("operator",), description="Third.")
        )
        await asyncio.sleep(0.2)
        assert (ann.count, bob.count) == (3, 0)


async def test_a_session_is_told_by_the_groups_of_its_last_request(world: World) -> None:
    def change(description: str) -> None:
        world.follower.swap(served("op", permissions=("operator",), description=description))

    heard = Heard()
    world.callers["ann"] = Caller(subject="ann", groups=frozenset({"dev"}))
    change("First.")
    ann = sse_client(world.sse, headers={"Authorization": "Bearer ann"})
    async with mcp.Client(ann, message_handler=heard) as client:
        await until(lambda: world.mcp.status().subscribers == 1)
        world.callers["ann"] = Caller(subject="ann", groups=frozenset({"operator"}))
        assert len((await client.list_tools()).tools) == 1  # by which the client knows, and need not be told
        change("Second.")
        await until(lambda: heard.count == 1)
        world.callers["ann"] = Caller(subject="ann")
        with pytest.raises(MCPError):
            await client.call_tool("op", {})
        await until(lambda: heard.count == 2)
        change("Third.")
        await asyncio.sleep(0.2)
        assert heard.count == 2


@pytest.mark.parametrize(
    ("opened", "asked", "seen"),
    [
        ("?groups=one", "", {"a"}),
        ("?groups=one", "?groups=one,two", {"a"}),
        ("?groups=one", "?groups=two", set()),
        ("?groups=", "", set()),
        ("", "?groups=two", {"b"}),
        ("", "", {"a", "b"}),
    ],
)
async def test_a_session_stays_as_narrow_as_it_was_opened(
    tokens: Tokens, opened: str, asked: str, seen: set[str]
) -> None:
    headers = {"Authorization": f"Bearer {tokens.put('ann', 'dev')}", **BOTH}
    world = World(
        served("a", permissions=("dev",), group="one"),
        served("b", permissions=("dev",), group="two"),
        tokens=tokens.file,
    )
    async with world.serving(), httpx.AsyncClient(base_url=world.url, headers=headers) as http:
        hello = await http.post(f"/mcp{opened}", json=HELLO)
        http.headers["Mcp-Session-Id"] = hello.headers["mcp-session-id"]
        listed = await http.post(f"/mcp{asked}", json=LIST)
        call = {**LIST, "method": "tools/call", "params": {"name": "a", "arguments": {}}}
        world.invocation.bodies["a"] = world.invocation.bodies["b"] = None  # type: ignore[assignment]
        await http.post(f"/mcp{asked}", json=call)
    assert {name for name in ("a", "b") if f'"name":"{name}"' in listed.text} == seen
    narrowed = world.invocation.calls[-1][2].only_groups
    assert narrowed is None or ("one" in narrowed) == ("a" in seen)
