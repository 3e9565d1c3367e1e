"""Tools: what is registered, and adding, replacing and deleting those that git does not own."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Header, Query, Response

from portoser.api.context import CallerOf, EditorOf, ServicesOf, has_role
from portoser.api.documents import PUT_BODY, TOOL_BODY, refusals
from portoser.api.models import FileOut, ProblemItem, ProvenanceOut, ToolChanged, ToolDetail, ToolOut, ToolPage
from portoser.api.paging import Limit, Name, Skip, did_you_mean, page
from portoser.api.problems import Refused, problem_item
from portoser.api.route import BoundedRoute
from portoser.api.services import Services
from portoser.api.writing import (
    admitted,
    applied,
    owner_of,
    put,
    refuse_what_another_was_granted,
    refuse_what_git_owns,
)
from portoser.catalog.caller import Caller
from portoser.catalog.change import DeleteTool
from portoser.catalog.errors import Conflict, Denied, Invalid, NotFound, Problem
from portoser.catalog.policy import Role
from portoser.catalog.tool import RegisteredTool, ToolStatus
from portoser.registry.snapshot import ServedTool
from sync.manifest import from_rest

router = APIRouter(prefix="/api/mcp/tools", tags=["tools"], route_class=BoundedRoute)

Declared = Annotated[dict[str, Any], Body(json_schema_extra=TOOL_BODY)]
Redeclared = Annotated[dict[str, Any], Body(json_schema_extra=PUT_BODY)]
IfMatch = Annotated[
    str | None, Header(description="The ETag of the version that the change was made for; `*` for any.", max_length=200)
]
_ETAG = {
    "ETag": {"description": "The tool's version, last change and digest, for If-Match.", "schema": {"type": "string"}}
}


@router.get("", operation_id="list_tools", summary="Registered tools", responses=refusals(401, 403, 422))
async def list_tools(
    services: ServicesOf,
    caller: CallerOf,
    skip: Skip = 0,
    limit: Limit = 100,
    everything: Annotated[
        bool | None,
        Query(
            alias="all",
            description="Also tools that you may not call, or whose group is off; for editors and admins, "
            "who get them unless they say false.",
        ),
    ] = None,
    group: Annotated[str | None, Query(description="Only tools of this group.")] = None,
    owner: Annotated[str | None, Query(description="Only tools of this owner, as `git:main` or `rest:ada`.")] = None,
    status: Annotated[ToolStatus | None, Query(description="Only tools that stand like this.")] = None,
    q: Annotated[str | None, Query(description="Only tools whose name or description holds this.")] = None,
) -> ToolPage:
    """Tools by name: those that you may call, and for editors all."""
    found = [
        tool
        for tool in _listed(services, caller, everything)
        if (group is None or tool.registered.group == group)
        and (owner is None or tool.registered.owner == owner)
        and (status is None or tool.registered.status is status)
        and (not q or _holds(tool, q.casefold()))
    ]
    return ToolPage(
        total=len(found), skip=skip, limit=limit, tools=[ToolOut(**_shown(tool)) for tool in page(found, skip, limit)]
    )


@router.post(
    "",
    operation_id="add_tool",
    summary="Add a tool",
    status_code=201,
    responses={201: {"headers": _ETAG}, **refusals(400, 401, 403, 409, 413, 415, 422, 503)},
)
async def add_tool(services: ServicesOf, caller: EditorOf, body: Declared, response: Response) -> ToolChanged:
    """Add a tool, or replace one with `replace_existing`; answers when it is served."""
    declared = from_rest(body)
    existing = services.follower.snapshot.tools.get(declared.name)
    registered = existing.registered if existing is not None else None
    if registered is not None:
        refuse_what_git_owns(registered, services.repository)
        if body.get("replace_existing") is not True:
            raise Conflict(
                f"There is a tool {registered.name!r} already, at version {registered.version}, of {registered.owner}. "
                'Send "replace_existing": true to replace it.'
            )
    refuse_what_another_was_granted(services, declared, registered, caller)
    revision, warnings = await admitted(services, declared, owner=owner_of(registered, caller))
    change = put(
        declared.name,
        revision,
        group=declared.group,
        permissions=declared.permissions,
        caller=caller,
        existing=registered,
    )
    await applied(services, [change], caller)
    return _changed(await _detail(services, caller, declared.name, response), warnings)


@router.get(
    "/{name}",
    operation_id="get_tool",
    summary="One tool",
    responses={200: {"headers": _ETAG}, **refusals(401, 403, 404, 422, 503)},
)
async def get_tool(services: ServicesOf, caller: CallerOf, name: Name, response: Response) -> ToolDetail:
    """A tool with its schemas and limits, and its code for callers who may edit tools."""
    return await _detail(services, caller, name, response)


@router.put(
    "/{name}",
    operation_id="put_tool",
    summary="Add or replace a tool",
    responses={
        200: {"headers": _ETAG},
        201: {"model": ToolChanged, "description": "There was none of this name.", "headers": _ETAG},
        **refusals(400, 401, 403, 409, 412, 413, 415, 422, 503),
    },
)
async def put_tool(
    services: ServicesOf, caller: EditorOf, name: Name, body: Redeclared, response: Response, if_match: IfMatch = None
) -> ToolChanged:
    """Make the tool what the body says, whether it exists or not; If-Match refuses a change that comes too late."""
    if body.get("name", name) != name:
        message = f"The body names {body['name']!r}, the address {name!r}."
        raise Invalid([Problem(path="name", message=message, advice="Leave the name out of the body.")])
    declared = from_rest({**body, "name": name})
    served = services.follower.snapshot.tools.get(name)
    existing = served.registered if served is not None else None
    _check_match(if_match, existing)
    if existing is not None:
        refuse_what_git_owns(existing, services.repository)
    refuse_what_another_was_granted(services, declared, existing, caller)
    revision, warnings = await admitted(services, declared, owner=owner_of(existing, caller))
    change = put(
        name, revision, group=declared.group, permissions=declared.permissions, caller=caller, existing=existing
    )
    await applied(services, [change], caller)
    response.status_code = 201 if existing is None else 200
    return _changed(await _detail(services, caller, name, response), warnings)


@router.delete(
    "/{name}",
    operation_id="delete_tool",
    summary="Delete a tool",
    status_code=204,
    responses=refusals(401, 403, 404, 409, 412, 422, 503),
)
async def delete_tool(services: ServicesOf, caller: EditorOf, name: Name, if_match: IfMatch = None) -> None:
    """Take a tool that git does not own away; its history stays."""
    existing = registered_tool(services, name)
    _check_match(if_match, existing)
    refuse_what_git_owns(existing, services.repository)
    change = DeleteTool(
        name=name,
        owner=existing.owner,
        expected_version=existing.version,
        expected_generation=existing.generation,
    )
    await applied(services, [change], caller)


def registered_tool(services: Services, name: str) -> RegisteredTool:
    """A living tool, for callers who may see all.

    Raises:
        NotFound: there is none; with the nearest name.
    """
    tools = services.follower.snapshot.tools
    if name not in tools:
        raise NotFound(f"There is no tool {name!r}.{did_you_mean(name, tools)}")
    return tools[name].registered


def seen_tool(services: Services, caller: Caller, name: str) -> ServedTool:
    """A living tool that the caller may know of: whoever may call it may, and editors.

    Raises:
        NotFound: there is none; with the nearest name of those that the caller may call.
        Denied: there is one that the caller may not call.
    """
    snapshot = services.follower.snapshot
    if has_role(services, caller, Role.EDITOR) and name in snapshot.tools:
        return snapshot.tools[name]
    decision = services.access.decide(snapshot, name, caller)
    if decision.allowed:
        return snapshot.tools[name]
    if decision.reason == "unknown_tool":
        names = (tool.registered.name for tool in services.access.visible(snapshot, caller))
        raise NotFound(f"There is no tool {name!r}.{did_you_mean(name, names)}")
    raise Denied(decision.message)


async def detail_of(services: Services, caller: Caller, name: str) -> ToolDetail:
    """A tool as ``GET /tools/{name}`` shows it to the caller."""
    tool = seen_tool(services, caller, name)
    revision = tool.registered.revision
    files = None
    if has_role(services, caller, Role.EDITOR):
        files = [FileOut(path=file.path, content=file.content) for file in await services.code.files(revision.digest)]
    return ToolDetail(
        **_shown(tool),
        entrypoint=revision.entrypoint,
        input_schema=revision.input_schema,
        output_schema=revision.output_schema,
        limits={
            **msgspec.to_builtins(revision.limits),
            "rate": str(revision.limits.rate) if revision.limits.rate else None,
        },
        isolation=revision.isolation.value,
        confirm=revision.confirm,
        uses=revision.uses,
        requires=list(revision.requires),
        redact=list(revision.redact),
        files=files,
    )


def etag(tool: RegisteredTool) -> str:
    """What If-Match compares. The generation grows with every change of the tool, also of its permissions alone."""
    return _etag(tool.version, tool.generation, tool.digest)


def _etag(version: int, generation: int, digest: str) -> str:
    return f'"{version}-{generation}-{digest[:16]}"'


async def _detail(services: Services, caller: Caller, name: str, response: Response) -> ToolDetail:
    shown = await detail_of(services, caller, name)
    response.headers["ETag"] = _etag(shown.version, shown.generation, shown.digest)
    return shown


def _changed(shown: ToolDetail, warnings: Sequence[Problem]) -> ToolChanged:
    return ToolChanged(
        **{name: getattr(shown, name) for name in ToolDetail.model_fields},
        warnings=[ProblemItem(**problem_item(warning)) for warning in warnings],
    )


def _listed(services: Services, caller: Caller, everything: bool | None) -> list[ServedTool]:
    snapshot = services.follower.snapshot
    is_editor = has_role(services, caller, Role.EDITOR)
    if everything and not is_editor:
        raise Denied("Only editors and admins see tools that they may not call; leave out all=true.")
    if is_editor and everything is not False:
        return list(snapshot.tools.values())
    return list(services.access.visible(snapshot, caller))


def _holds(tool: ServedTool, text: str) -> bool:
    registered = tool.registered
    return text in registered.name.casefold() or text in registered.revision.description.casefold()


def _check_match(if_match: str | None, existing: RegisteredTool | None) -> None:
    if if_match is None:
        return
    wanted = {tag.strip().removeprefix("W/") for tag in re.split(r"\s*,\s*", if_match)}
    if existing is not None and ("*" in wanted or etag(existing) in wanted):
        return
    now = f"it is at {etag(existing)}" if existing is not None else "there is none"
    raise Refused(412, f"The tool is not at {if_match}: {now}. Read it again.", code="precondition_failed")


def _shown(tool: ServedTool) -> dict[str, Any]:
    registered, provenance = tool.registered, tool.registered.provenance
    return {
        "name": registered.name,
        "description": registered.revision.description,
        "owner": registered.owner,
        "group": registered.group,
        "permissions": list(tool.permissions),
        "own_permissions": None if registered.permissions is None else list(registered.permissions),
        "enabled": tool.enabled,
        "status": registered.status.value,
        "problem": registered.problem,
        "version": registered.version,
        "digest": registered.digest,
        "annotations": msgspec.to_builtins(registered.revision.annotations),
        "provenance": ProvenanceOut(
            source=provenance.source,
            path=provenance.path,
            commit=provenance.commit,
            author=provenance.author,
            applied_commit=provenance.applied_commit,
        ),
        "generation": registered.generation,
        "created_at": registered.created_at,
        "updated_at": registered.updated_at,
    }
