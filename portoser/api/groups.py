"""Groups: what is switched on and off together."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter

from portoser.api.context import AdminOf, CallerOf, ServicesOf, is_insider
from portoser.api.documents import refusals
from portoser.api.models import GroupIn, GroupOut, GroupPage, OverrideOut
from portoser.api.paging import Limit, Name, Skip, did_you_mean, page
from portoser.api.route import BoundedRoute
from portoser.api.services import Services
from portoser.api.writing import applied
from portoser.catalog.change import OverrideGroup
from portoser.catalog.errors import Invalid, NotFound, Problem
from portoser.catalog.group import RegisteredGroup
from portoser.catalog.tool import REST
from portoser.catalog.units import parse_duration

router = APIRouter(prefix="/api/mcp/groups", tags=["groups"], route_class=BoundedRoute)

LONGEST_OVERRIDE = 366 * 86400.0
"""Seconds."""


@router.get("", operation_id="list_groups", summary="All groups", responses=refusals(401, 422))
async def list_groups(services: ServicesOf, caller: CallerOf, skip: Skip = 0, limit: Limit = 1000) -> GroupPage:
    """The groups that manifests declare, that tools name, or that an operator switched, by name.

    Permissions are for editors and auditors; for others they are null.
    """
    groups = _groups(services)
    if not is_insider(services, caller):
        groups = [group.model_copy(update={"permissions": None}) for group in groups]
    return GroupPage(total=len(groups), skip=skip, limit=limit, groups=list(page(groups, skip, limit)))


@router.put(
    "/{name}",
    operation_id="override_group",
    summary="Switch a group on or off",
    responses=refusals(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def override_group(services: ServicesOf, caller: AdminOf, name: Name, body: GroupIn) -> GroupOut:
    """An operator's word beats the declaration, with a reason, until ``ttl`` is over or it is taken back."""
    known = {group.name: group for group in _groups(services)}
    if name not in known:
        raise NotFound(f"There is no group {name!r}.{did_you_mean(name, known)}")
    change = OverrideGroup(
        name=name,
        owner=f"{REST}{caller.subject}",
        enabled=body.enabled,
        reason=body.reason,
        expires_at=_expiry(body.ttl),
    )
    await applied(services, [change], caller)
    return next(group for group in _groups(services) if group.name == name)


def _expiry(ttl: str | float | None) -> datetime | None:
    if ttl is None:
        return None
    try:
        seconds = parse_duration(ttl)
    except ValueError as error:
        raise Invalid([Problem(path="ttl", message=str(error))]) from None
    if seconds > LONGEST_OVERRIDE:
        raise Invalid([Problem(path="ttl", message="An override holds a year at most.", advice="Leave ttl out.")])
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _groups(services: Services) -> list[GroupOut]:
    snapshot = services.follower.snapshot
    tools = Counter(tool.registered.group for tool in snapshot.tools.values() if tool.registered.group)
    known = dict(snapshot.groups)
    for name in tools:
        known.setdefault(name, RegisteredGroup(name=name))
    return [_group(known[name], tools[name], name not in snapshot.disabled_groups) for name in sorted(known)]


def _group(group: RegisteredGroup, tools: int, enabled: bool) -> GroupOut:
    declared, override = group.declared, group.override
    if override is not None and override.expires_at is not None and override.expires_at <= datetime.now(UTC):
        override = None
    return GroupOut(
        name=group.name,
        description=declared.description if declared else "",
        enabled=enabled,
        declared_enabled=declared.enabled if declared else None,
        permissions=list(declared.permissions) if declared else [],
        owner=declared.owner if declared else None,
        path=declared.path if declared else None,
        tools=tools,
        override=None
        if override is None
        else OverrideOut(
            enabled=override.enabled,
            reason=override.reason,
            by=override.by,
            at=override.at,
            expires_at=override.expires_at,
        ),
    )
