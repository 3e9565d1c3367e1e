"""A tool's history, and going back in it."""

from fastapi import APIRouter, Response

from portoser.api.context import CallerOf, EditorOf, ServicesOf
from portoser.api.documents import refusals
from portoser.api.models import RollbackIn, ToolDetail, VersionOut, VersionPage
from portoser.api.paging import Limit, Name, Skip, page
from portoser.api.route import BoundedRoute
from portoser.api.tools import detail_of, etag, registered_tool, seen_tool
from portoser.api.writing import applied, put, refuse_what_git_owns
from portoser.catalog.errors import NotFound
from portoser.registry import history

router = APIRouter(prefix="/api/mcp/tools/{name}", tags=["tools"], route_class=BoundedRoute)


@router.get(
    "/versions",
    operation_id="list_versions",
    summary="A tool's versions",
    responses=refusals(401, 403, 404, 422, 503),
)
async def list_versions(
    services: ServicesOf, caller: CallerOf, name: Name, skip: Skip = 0, limit: Limit = 100
) -> VersionPage:
    """Each version with its digest, commit and author, newest first."""
    tool = seen_tool(services, caller, name).registered
    rows = await history.versions(services.database, name)
    return VersionPage(
        total=len(rows),
        skip=skip,
        limit=limit,
        versions=[
            VersionOut(
                version=row.version,
                digest=row.digest,
                commit=row.commit,
                author=row.author,
                at=row.at,
                current=row.version == tool.version,
            )
            for row in page(rows, skip, limit)
        ],
    )


@router.post(
    "/rollback",
    operation_id="rollback_tool",
    summary="Go back to an earlier version",
    responses=refusals(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def rollback_tool(
    services: ServicesOf, caller: EditorOf, name: Name, body: RollbackIn, response: Response
) -> ToolDetail:
    """Make an earlier version's revision the current one, as a new version; group and permissions stay."""
    tool = registered_tool(services, name)
    refuse_what_git_owns(tool, services.repository)
    rows = {row.version: row for row in await history.versions(services.database, name)}
    if body.version not in rows:
        newest = max(rows, default=0)
        raise NotFound(f"The tool {name!r} has no version {body.version}; its versions are 1 to {newest}.")
    revision = await history.revision(services.database, rows[body.version].digest)
    change = put(name, revision, group=tool.group, permissions=tool.permissions, caller=caller, existing=tool)
    await applied(services, [change], caller)
    response.headers["ETag"] = etag(registered_tool(services, name))
    return await detail_of(services, caller, name)
