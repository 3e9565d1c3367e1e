"""How clients connect, and who the server takes a caller for."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request

from portoser.api.context import CallerOf, ServicesOf, has_role
from portoser.api.documents import refusals
from portoser.api.models import CallerOut, ConfigOut
from portoser.api.route import BoundedRoute
from portoser.catalog.policy import Role
from portoser.clients import NAME, Client, auth_headers, client_snippets
from portoser.identity.address import is_loopback

router = APIRouter(prefix="/api/mcp", tags=["connect"], route_class=BoundedRoute)

_FORWARDING = ("x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-host", "via")


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
    headers = auth_headers(auth_enabled=services.auth_enabled)
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
