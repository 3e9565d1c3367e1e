"""Clients that speak only stdio reach the server through the bridge."""

import sys

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from e2e_server import REPO, Notes, Server, text_of

GREET = 'def bridged(name: str) -> str:\n    """Greet somebody."""\n    return f"Hello, {name}!"\n'


async def talk(server: Server, command: StdioServerParameters) -> None:
    notes = Notes()
    async with Client(stdio_client(command), mode="legacy", message_handler=notes, cache=None) as client:
        assert "Ada" in text_of(await client.call_tool("examples.hello", {"name": "Ada"}))
        seen = notes.changed
        server.write("bridged.py", GREET)
        server.write("bridged.yaml", "kind: Tool\n")
        await notes.more_than(seen)
        assert text_of(await client.call_tool("bridged", {"name": "Ada"})) == "Hello, Ada!"
        seen = notes.changed
        (server.tools / "bridged.yaml").unlink()
        await notes.more_than(seen)


async def test_a_client_configured_with_node_calls_tools_and_is_told_of_changes(server: Server) -> None:
    await talk(
        server,
        StdioServerParameters(
            command="node",
            args=[str(REPO / "tools" / "mcp-bridge")],
            env={**server.env, "PORTOSER_SSE_URL": f"{server.url}/mcp/sse", "PORTOSER_PYTHON": sys.executable},
        ),
    )


async def test_the_bridge_command_does_the_same_without_node(server: Server) -> None:
    await talk(
        server,
        StdioServerParameters(
            command=sys.executable, args=["-m", "portoser", "bridge", f"{server.url}/mcp/sse"], env=server.env
        ),
    )
