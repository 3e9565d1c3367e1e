"""How the registry stands to its source, and the runs that brought it there."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, BackgroundTasks, Path, Query, Response
from pydantic import Field

from portoser.api.context import CallerOf, EditorOf, InsiderOf, ServicesOf, is_insider
from portoser.api.documents import refusals
from portoser.api.models import Model
from portoser.api.paging import Limit, Skip
from portoser.api.route import BoundedRoute
from portoser.api.services import Services
from portoser.api.standing import PlanOut, SourceOut, SyncNowOut, SyncOut, SyncRunDetail, SyncRunOut, SyncRunPage
from portoser.catalog.caller import Caller
from portoser.catalog.errors import NotFound, Unavailable
from portoser.store import sync_runs
from portoser.store.sync_runs import RunRow
from sync import report
from sync.ledger import plan_ids
from sync.sources.base import SourceUnreadable
from sync.status import SourceStatus


class SyncIn(Model):
    """``approve`` lets through the plan of that id, which a guard holds back; where another is due, that one stays."""

    approve: str | None = Field(default=None, min_length=1, max_length=64)


router = APIRouter(prefix="/api/mcp/sync", tags=["sync"], route_class=BoundedRoute)


@router.get("", operation_id="get_sync", summary="How the sources stand", responses=refusals(401))
async def get_sync(services: ServicesOf, caller: CallerOf) -> SyncOut:
    """Each source's phase and conditions, what is wrong in it, and its last run.

    Who is neither editor nor auditor is told of phase, conditions and counts, but not what they say of which tools.
    """
    return SyncOut(sources=[source_for(services, caller)])


@router.post(
    "",
    operation_id="sync_now",
    summary="Sync now",
    responses={
        202: {"model": SyncNowOut, "description": "The run is asked for."},
        **refusals(400, 401, 403, 413, 415, 422, 503),
    },
)
async def sync_now(
    services: ServicesOf,
    caller: EditorOf,
    response: Response,
    background: BackgroundTasks,
    body: SyncIn | None = None,
    wait: Annotated[bool, Query(description="Answer when the run has ended.")] = True,
) -> SyncNowOut:
    """Read the source again, thoroughly, whatever it says of having changed; let through what a guard holds back."""
    approve = body.approve if body is not None else None
    cause = f"{'asked for' if approve is None else 'approved'} by {caller.name or caller.subject}"
    run = None
    if wait:
        done = await services.reconciler.sync_now(cause, approve=approve)
        run = SyncRunOut.model_validate(msgspec.to_builtins(done))
    else:
        background.add_task(services.reconciler.sync_now, cause, approve=approve)
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


@router.get("/runs", operation_id="list_sync_runs", summary="Sync runs", responses=refusals(401, 403, 422, 503))
async def list_sync_runs(services: ServicesOf, _: InsiderOf, skip: Skip = 0, limit: Limit = 50) -> SyncRunPage:
    """Runs that changed something, failed or were interrupted, and the one that goes on, newest first.

    That one has no outcome yet.
    """
    async with services.database.acquire() as connection:
        total = await sync_runs.count(connection)
        rows = await sync_runs.newest(connection, limit=limit, skip=skip)
        plans = await plan_ids(connection, [row.id for row in rows])
    runs = [SyncRunOut(**_run(row), plan_id=plans.get(row.id)) for row in rows]
    return SyncRunPage(total=total, skip=skip, limit=limit, runs=runs)


@router.get(
    "/runs/{run_id}", operation_id="get_sync_run", summary="One sync run", responses=refusals(401, 403, 404, 422, 503)
)
async def get_sync_run(
    services: ServicesOf,
    _: InsiderOf,
    run_id: Annotated[UUID, Path(description="The run's id.")],
) -> SyncRunDetail:
    """A run with the plan that it made."""
    async with services.database.acquire() as connection:
        row = await sync_runs.named(connection, str(run_id))
    if row is None:
        raise NotFound(f"There is no sync run {run_id}.")
    return SyncRunDetail(**_run(row), plan_id=(row.plan or {}).get("plan_id"), plan=row.plan)


def source_for(services: Services, caller: Caller) -> SourceOut:
    """A source's status as far as the caller may know of it."""
    shown = source_shown(services.reconciler.status)
    if is_insider(services, caller):
        return shown
    conditions = [condition.model_copy(update={"message": ""}) for condition in shown.conditions]
    hidden: dict[str, Any] = {"location": "", "problems": [], "warnings": [], "held_plan": None, "last_run": None}
    return shown.model_copy(update={**hidden, "conditions": conditions})


def source_shown(status: SourceStatus) -> SourceOut:
    """A source's status as REST tells it."""
    return SourceOut.model_validate(msgspec.to_builtins(status))


def _run(row: RunRow) -> dict[str, Any]:
    fields = msgspec.structs.asdict(row)
    del fields["plan"]
    return {**fields, "problems": fields["problems"] or []}
