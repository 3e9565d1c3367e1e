"""How the registry stands to its source, and the runs that brought it there."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, BackgroundTasks, Path, Query, Response

from portoser.api.context import CallerOf, EditorOf, ServicesOf
from portoser.api.documents import refusals
from portoser.api.paging import Limit, Skip
from portoser.api.route import BoundedRoute
from portoser.api.standing import PlanOut, SourceOut, SyncNowOut, SyncOut, SyncRunDetail, SyncRunOut, SyncRunPage
from portoser.catalog.errors import NotFound, Unavailable
from portoser.store import sync_runs
from portoser.store.sync_runs import RunRow
from sync import report
from sync.sources.base import SourceUnreadable
from sync.status import SourceStatus

router = APIRouter(prefix="/api/mcp/sync", tags=["sync"], route_class=BoundedRoute)


@router.get("", operation_id="get_sync", summary="How the sources stand", responses=refusals(401))
async def get_sync(services: ServicesOf, _: CallerOf) -> SyncOut:
    """Each source's phase and conditions, what is wrong in it, and its last run."""
    return SyncOut(sources=[source_shown(services.reconciler.status)])


@router.post(
    "",
    operation_id="sync_now",
    summary="Sync now",
    responses={202: {"model": SyncNowOut, "description": "The run is asked for."}, **refusals(401, 403, 422, 503)},
)
async def sync_now(
    services: ServicesOf,
    caller: EditorOf,
    response: Response,
    background: BackgroundTasks,
    wait: Annotated[bool, Query(description="Answer when the run has ended.")] = True,
) -> SyncNowOut:
    """Read the source again, thoroughly, whatever it says of having changed."""
    cause = f"asked for by {caller.name or caller.subject}"
    run = None
    if wait:
        done = await services.reconciler.sync_now(cause)
        run = SyncRunOut.model_validate(msgspec.to_builtins(done))
    else:
        background.add_task(services.reconciler.sync_now, cause)
        response.status_code = 202
    return SyncNowOut(sources=[source_shown(services.reconciler.status)], run=run)


@router.get(
    "/plan",
    operation_id="get_sync_plan",
    summary="What a sync run would change",
    responses=refusals(401, 403, 503),
)
async def get_sync_plan(services: ServicesOf, _: EditorOf) -> PlanOut:
    """Read the source and compare it with the registry, and change nothing; what is held back is in it."""
    try:
        plan = await services.reconciler.plan()
    except SourceUnreadable as error:
        raise Unavailable(str(error)) from error
    return PlanOut.model_validate({**report.as_json(plan), "text": report.as_text(plan)})


@router.get("/runs", operation_id="list_sync_runs", summary="Sync runs", responses=refusals(401, 422, 503))
async def list_sync_runs(services: ServicesOf, _: CallerOf, skip: Skip = 0, limit: Limit = 50) -> SyncRunPage:
    """Runs that changed something or failed, newest first."""
    async with services.database.acquire() as connection:
        total = await sync_runs.count(connection)
        rows = await sync_runs.newest(connection, limit=limit, skip=skip)
    return SyncRunPage(total=total, skip=skip, limit=limit, runs=[SyncRunOut(**_run(row)) for row in rows])


@router.get(
    "/runs/{run_id}", operation_id="get_sync_run", summary="One sync run", responses=refusals(401, 404, 422, 503)
)
async def get_sync_run(
    services: ServicesOf,
    _: CallerOf,
    run_id: Annotated[UUID, Path(description="The run's id.")],
) -> SyncRunDetail:
    """A run with the plan that it made."""
    async with services.database.acquire() as connection:
        row = await sync_runs.named(connection, str(run_id))
    if row is None:
        raise NotFound(f"There is no sync run {run_id}.")
    return SyncRunDetail(**_run(row), plan=row.plan)


def source_shown(status: SourceStatus) -> SourceOut:
    """A source's status as REST tells it."""
    return SourceOut.model_validate(msgspec.to_builtins(status))


def _run(row: RunRow) -> dict[str, Any]:
    fields = msgspec.structs.asdict(row)
    del fields["plan"]
    return {**fields, "problems": fields["problems"] or []}
