"""What to write into which MCP client's configuration: for REST, the command line and the documentation alike."""

from enum import StrEnum
from typing import Any

NAME = "portoser"
PLACEHOLDER = "<YOUR_TOKEN>"


class Client(StrEnum):
    """The clients that there is a snippet for."""

    CLAUDE_DESKTOP = "claude-desktop"
    CLAUDE_CODE = "claude-code"
    CURSOR = "cursor"
    VSCODE = "vscode"
    CONTINUE = "continue"
    GENERIC = "generic"


def auth_headers(*, auth_enabled: bool) -> dict[str, str]:
    """The headers that clients send, with a placeholder: never a live token."""
    return {"Authorization": f"Bearer {PLACEHOLDER}"} if auth_enabled else {}


def client_snippets(base: str, headers: dict[str, str], *, command: str = NAME) -> dict[str, dict[str, Any]]:
    """For each client: its file or its command, and what belongs into it.

    ``base`` is the server's address, and ``command`` what starts the bridge. Where a file's place depends on the
    system, ``files`` has it by system.
    """
    sse, http = f"{base}/mcp/sse", f"{base}/mcp"
    with_headers = {"headers": headers} if headers else {}
    token = {"env": {"PORTOSER_TOKEN": PLACEHOLDER}} if headers else {}
    header_flags = "".join(f" --header '{name}: {value}'" for name, value in headers.items())
    request_options = {"requestOptions": with_headers} if headers else {}
    return {
        Client.CLAUDE_DESKTOP.value: {
            "file": "claude_desktop_config.json",
            "files": {
                "macOS": "~/Library/Application Support/Claude/claude_desktop_config.json",
                "Windows": r"%APPDATA%\Claude\claude_desktop_config.json",
            },
            "content": {"mcpServers": {NAME: {"command": command, "args": ["bridge", sse], **token}}},
        },
        Client.CLAUDE_CODE.value: {
            "command": f"claude mcp add --transport http {NAME} {http}{header_flags}",
            "file": ".mcp.json",
            "content": {"mcpServers": {NAME: {"type": "http", "url": http, **with_headers}}},
        },
        Client.CURSOR.value: {
            "file": "~/.cursor/mcp.json",
            "content": {"mcpServers": {NAME: {"url": http, **with_headers}}},
        },
        Client.VSCODE.value: {
            "file": ".vscode/mcp.json",
            "content": {"servers": {NAME: {"type": "http", "url": http, **with_headers}}},
        },
        Client.CONTINUE.value: {
            "file": ".continue/mcpServers/portoser.yaml",
            "content": {
                "name": NAME,
                "version": "1.0.0",
                "schema": "v1",
                "mcpServers": [{"name": NAME, "type": "streamable-http", "url": http, **request_options}],
            },
        },
        Client.GENERIC.value: {
            "content": {"mcpServers": {NAME: {"type": "sse", "url": sse, **with_headers}}},
        },
    }
