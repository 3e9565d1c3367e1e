"""Whether the server lives, is ready, and how it fares."""

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime

import msgspec
from fastapi import APIRouter, Response

from portoser.api.context import CallerOf, ServicesOf
from portoser.api.documents import refusals
from portoser.api.metrics import CONTENT_TYPE
from portoser.api.models import HealthOut, ReadyOut
from portoser.api.route import BoundedRoute
from portoser.api.services import Services
from portoser.api.standing import StatusOut
from portoser.api.sync import source_for
from portoser.catalog.errors import Unavailable
from portoser.powers.registry import problems_of
from portoser.store.generation import writable

router = APIRouter(tags=["server"], route_class=BoundedRoute)

STALE_AFTER = 15.0
"""Seconds without a word from the registry after which status warns."""


@router.get("/health", operation_id="health", summary="Whether the process answers")
async def health(services: ServicesOf) -> HealthOut:
    """Answers while the process lives; it asks nothing of anything else."""
    return HealthOut(status="ok", version=services.version)


@router.get("/ready", operation_id="ready", summary="Whether the server can serve", responses=refusals(503))
async def ready(services: ServicesOf) -> ReadyOut:
    """200 once the registry is loaded, the source was read once, and the database can be written; else 503 says why."""
    if not services.reconciler.has_run:
        raise Unavailable("The source has not been read yet.")
    async with services.database.acquire(timeout=2) as connection:
        if not await writable(connection):
            raise Unavailable("The database takes no writes now.", retry_after=5)
    return ReadyOut(status="ready", generation=services.follower.snapshot.generation)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(401)},
)
async def metrics(services: ServicesOf) -> Response:
    """Calls by outcome, durations, the generation, tools, workers, in Prometheus' text format."""
    return Response(services.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})


@router.get("/api/mcp/status", operation_id="get_status", summary="How the server fares", responses=refusals(401))
async def get_status(services: ServicesOf, caller: CallerOf) -> StatusOut:
    """The registry, the source, the workers and the database, and what an operator should know of."""
    now = datetime.now(UTC)
    snapshot = services.follower.snapshot
    stands = Counter(tool.registered.status.value for tool in snapshot.tools.values())
    age = max(0.0, time.monotonic() - services.follower.last_read_at)
    disabled = sum(1 for tool in snapshot.tools.values() if not tool.enabled)
    return StatusOut(
        version=services.version,
        started_at=services.started_at,
        uptime_seconds=round((now - services.started_at).total_seconds(), 1),
        auth="tokens" if services.auth_enabled else "off",
        generation=snapshot.generation,
        read_seconds_ago=round(age, 2),
        database={"kind": "embedded" if services.embedded_database else "external", "answers": age < STALE_AFTER},
        tools={"total": len(snapshot.tools), "switched_off": disabled, **dict(sorted(stands.items()))},
        groups={"total": len(snapshot.groups), "switched_off": len(snapshot.disabled_groups)},
        runtime=msgspec.to_builtins(services.runtime.status()),
        environments=msgspec.to_builtins(await services.environments.standing()),
        sources=[source_for(services, caller)],
        warnings=_warnings(services, age, await _registry_problems(services)),
    )


async def _registry_problems(services: Services) -> list[str]:
    return await asyncio.to_thread(problems_of, services.registry) if services.registry is not None else []


def _warnings(services: Services, age: float, registry: list[str]) -> list[str]:
    warnings = []
    if not services.auth_enabled:
        warnings.append("Auth is off: everybody who reaches this server may do everything.")
    if services.runtime.status().sandbox == "off":
        warnings.append("The sandbox is off: tools run with the rights of the server's user.")
    if services.role_warning is not None:
        warnings.append(services.role_warning)
    warnings += [f"The registry has a problem, so no tool can read it: {problem}" for problem in registry]
    if age > STALE_AFTER:
        warnings.append(f"The database has not answered for {age:.0f} s: lists are served, calls are refused.")
    return warnings
