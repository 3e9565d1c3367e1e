"""The main job: commit a function, call it over MCP, change it while clients are connected."""

import mcp_types
import pytest

from e2e_server import Server, fastmcp_client, sdk_http, sdk_sse, text_of, until

GREET = 'def greet(name: str) -> str:\n    """Greet somebody."""\n    return f"Hello, {name}!"\n'


async def tool_names(client: object) -> set[str]:
    names: set[str] = set()
    cursor: str | None = None
    while True:
        page = await client.list_tools(cursor=cursor)  # type: ignore[attr-defined]
        names |= {tool.name for tool in page.tools}
        cursor = page.next_cursor
        if cursor is None:
            return names


async def test_a_committed_function_is_called_over_sse_by_the_sdks_client(server: Server) -> None:
    async with sdk_sse(server) as (client, _):
        result = await client.call_tool("examples.hello", {"name": "Ada"})
    assert not result.is_error
    assert "Ada" in text_of(result)


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_committed_function_is_called_over_http_in_both_protocol_eras(server: Server, mode: str) -> None:
    async with sdk_http(server, mode) as (client, _):
        result = await client.call_tool("examples.hello", {"name": "Ada"})
        assert "Ada" in text_of(result)
        assert "examples.hello" in await tool_names(client)


@pytest.mark.parametrize("transport", ["sse", "http"])
async def test_a_committed_function_is_called_by_fastmcps_client(server: Server, transport: str) -> None:
    async with fastmcp_client(server, transport) as client:
        result = await client.call_tool("examples.hello", {"name": "Ada"})
        assert "Ada" in text_of(result)
        assert "examples.hello" in {tool.name for tool in await client.list_tools()}


async def test_a_saved_file_is_announced_to_connected_clients_and_served_without_a_restart(server: Server) -> None:
    async with sdk_sse(server) as (sse, sse_notes), sdk_http(server, "legacy") as (http, http_notes):
        assert "greet" not in await tool_names(sse)
        seen, seen_http = sse_notes.changed, http_notes.changed

        server.write("greet.py", GREET)
        server.write("greet.yaml", "kind: Tool\n")
        await sse_notes.more_than(seen)
        await http_notes.more_than(seen_http)
        assert text_of(await sse.call_tool("greet", {"name": "Ada"})) == "Hello, Ada!"
        assert text_of(await http.call_tool("greet", {"name": "Ada"})) == "Hello, Ada!"

        seen = sse_notes.changed
        server.write("greet.py", GREET.replace("name: str", "name: str, loud: bool = False").replace("Hello", "Hi"))
        await sse_notes.more_than(seen)
        assert text_of(await sse.call_tool("greet", {"name": "Ada"})) == "Hi, Ada!"
        listed = {tool.name: tool for tool in (await sse.list_tools()).tools}
        assert "loud" in listed["greet"].input_schema["properties"]

        seen = sse_notes.changed
        (server.tools / "greet.yaml").unlink()
        await sse_notes.more_than(seen)
        assert "greet" not in await tool_names(sse)


async def test_a_2026_client_that_listens_is_told_of_a_change(server: Server) -> None:
    async with sdk_http(server, "2026-07-28") as (client, _):
        async with client.listen(tools_list_changed=True) as events:
            server.write("whisper.py", GREET.replace("greet", "whisper"))
            server.write("whisper.yaml", "kind: Tool\n")
            async for _event in events:
                if "whisper" in await tool_names(client):
                    break
        assert text_of(await client.call_tool("whisper", {"name": "Ada"})) == "Hello, Ada!"
    (server.tools / "whisper.yaml").unlink()


async def test_a_broken_edit_keeps_the_last_good_revision_and_says_what_is_wrong(server: Server) -> None:
    server.write("steady.py", GREET.replace("greet", "steady"))
    server.write("steady.yaml", "kind: Tool\n")
    async with sdk_sse(server) as (client, _):

        async def listed() -> bool:
            return "steady" in await tool_names(client)

        await until(listed)
        server.write("steady.py", "def steady(name: str) -> str:\n    return name +\n")

        async def shown_invalid() -> dict[str, object] | None:
            tool = server.api("GET", "/api/mcp/tools/steady").json()
            return tool if tool["status"] == "Invalid" else None

        tool = await until(shown_invalid)
        assert "steady.py:2" in str(tool["problem"])
        assert text_of(await client.call_tool("steady", {"name": "Ada"})) == "Hello, Ada!"
    (server.tools / "steady.yaml").unlink()


async def test_capabilities_claim_tools_with_list_changed_and_nothing_else(server: Server) -> None:
    for mode in ("legacy", "2026-07-28"):
        async with sdk_http(server, "auto" if mode == "2026-07-28" else mode) as (client, _):
            said = client.server_capabilities
            assert said is not None
            assert said.tools == mcp_types.ToolsCapability(list_changed=True)
            assert said.prompts is None
            assert said.resources is None


async def test_an_unknown_tool_and_wrong_arguments_are_clear_errors(server: Server) -> None:
    async with sdk_sse(server) as (client, _):
        wrong = await client.call_tool("examples.hello", {"name": 7})
        assert wrong.is_error
        assert "name" in text_of(wrong)
        with pytest.raises(Exception, match="nothing_here"):
            await client.call_tool("nothing_here", {})
