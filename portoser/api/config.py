"""How clients connect, and who the server takes a caller for."""

import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from portoser.api.context import CallerOf, ServicesOf, has_role
from portoser.api.documents import refusals
from portoser.api.models import CallerOut, ConfigOut
from portoser.api.route import BoundedRoute
from portoser.catalog.policy import Role
from portoser.identity.address import is_loopback

router = APIRouter(prefix="/api/mcp", tags=["connect"], route_class=BoundedRoute)

PLACEHOLDER = "<YOUR_TOKEN>"
NAME = "portoser"

_FORWARDING = ("x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-host", "via")


class Client(StrEnum):
    """The clients that there is a snippet for."""

    CLAUDE_DESKTOP = "claude-desktop"
    CLAUDE_CODE = "claude-code"
    CURSOR = "cursor"
    VSCODE = "vscode"
    CONTINUE = "continue"
    GENERIC = "generic"


@router.get(
    "/config",
    operation_id="get_client_config",
    summary="How MCP clients connect",
    responses=refusals(401, 422),
)
async def get_config(
    request: Request,
    services: ServicesOf,
    client: Annotated[Client | None, Query(description="Only this client's snippet.")] = None,
) -> ConfigOut:
    """URLs, headers, and what to write into which client's configuration."""
    base = services.public_url or str(request.base_url).rstrip("/")
    headers = {"Authorization": f"Bearer {PLACEHOLDER}"} if services.auth_enabled else {}
    snippets = client_snippets(base, headers, command=_own_script() if _is_local(request) else NAME)
    return ConfigOut(
        sse_url=f"{base}/mcp/sse",
        transport="sse",
        headers=headers,
        http_url=f"{base}/mcp",
        clients=snippets if client is None else {client.value: snippets[client.value]},
    )


@router.get("/whoami", operation_id="whoami", summary="Who the server takes you for", responses=refusals(401))
async def whoami(services: ServicesOf, caller: CallerOf) -> CallerOut:
    """The caller of this request, its groups and roles, and how many tools it may call."""
    expires = caller.expires_at
    return CallerOut(
        subject=caller.subject,
        name=caller.name or caller.subject,
        kind=caller.kind.value,
        groups=sorted(caller.groups),
        client=caller.client,
        only_groups=None if caller.only_groups is None else sorted(caller.only_groups),
        roles=[role.value for role in Role if has_role(services, caller, role)],
        tools=len(services.access.visible(services.follower.snapshot, caller)),
        expires_at=None if expires is None else datetime.fromtimestamp(expires, UTC),
        address=caller.address,
    )


def _is_local(request: Request) -> bool:
    """Whether a request comes from this machine itself, and not through a proxy that runs here."""
    forwarded = any(name in request.headers for name in _FORWARDING)
    return request.client is not None and is_loopback(request.client.host) and not forwarded


def _own_script() -> str:
    """This installation's command by its whole path, as it need not be on a client's PATH."""
    script = Path(sys.executable).parent / NAME
    return str(script) if script.exists() else NAME


def client_snippets(base: str, headers: dict[str, str], *, command: str = NAME) -> dict[str, dict[str, Any]]:
    """For each client: the file or command, and what belongs into it; ``command`` starts the bridge."""
    sse, http = f"{base}/mcp/sse", f"{base}/mcp"
    with_headers = {"headers": headers} if headers else {}
    token = {"env": {"PORTOSER_TOKEN": PLACEHOLDER}} if headers else {}
    header_flags = "".join(f" --header '{name}: {value}'" for name, value in headers.items())
    request_options = {"requestOptions": with_headers} if headers else {}
    return {
        Client.CLAUDE_DESKTOP.value: {
            "file": "claude_desktop_config.json",
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
