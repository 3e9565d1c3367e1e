"""Calling tools over REST, and why a caller may or may not."""

from typing import Annotated, Any, NoReturn

import anyio
import msgspec
from fastapi import APIRouter, Query, Request, Response

from portoser.api.context import CallerOf, ServicesOf, has_role
from portoser.api.documents import refusals
from portoser.api.models import CallIn, CallOut, ExplainOut
from portoser.api.paging import Name, did_you_mean
from portoser.api.problems import Refused
from portoser.api.route import BoundedRoute
from portoser.api.services import Services
from portoser.api.tools import seen_tool
from portoser.audit.entry import Outcome
from portoser.catalog.caller import Caller, CallerKind
from portoser.catalog.errors import Denied, NotFound
from portoser.catalog.policy import Role
from portoser.catalog.question import Action, Answer
from portoser.invocation import CallResult
from portoser.invocation.asks import Later

router = APIRouter(prefix="/api/mcp/tools/{name}", tags=["calls"], route_class=BoundedRoute)

REQUEST_ID = "Portoser-Request-Id"

_BY_REASON = {
    "unknown_tool": 404,
    "rate_limited": 429,
    "concurrency": 429,
    "busy": 503,
    "unrecorded": 503,
    "unavailable": 503,
    "internal": 500,
    "declined": 200,
}
_BY_OUTCOME = {
    Outcome.DENIED: 403,
    Outcome.INVALID: 422,
    Outcome.INPUT_REQUIRED: 409,
    Outcome.TIMEOUT: 504,
    Outcome.CANCELLED: 503,
}
_RETRY_AFTER = {429: "1", 503: "1"}


@router.post(
    "/call",
    operation_id="call_tool",
    summary="Call a tool",
    response_model=CallOut,
    responses={
        200: {
            "headers": {REQUEST_ID: {"description": "Finds the call in the audit log.", "schema": {"type": "string"}}}
        },
        **refusals(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 504),
    },
)
async def call_tool(
    request: Request, services: ServicesOf, caller: CallerOf, name: Name, body: CallIn | None = None
) -> Response:
    """Call a tool as MCP clients do. A tool that fails is answered with 200 and `isError`; leaving ends the call.

    A tool that asks a person is answered with 409, its `questions` and a `state`: send the call again with the
    `answers` and the `state`.
    """
    given = body or CallIn()
    result = await _invoked(request, services, caller, name, given)
    status = _status(result)
    headers = {REQUEST_ID: result.request_id}
    if status != 200:
        _refuse(result, status, headers, services, caller)
    return Response(msgspec.json.encode(result.to_wire()), headers=headers, media_type="application/json")


@router.get(
    "/explain",
    operation_id="explain_access",
    summary="Why a caller may or may not call a tool",
    responses=refusals(401, 403, 404, 422),
)
async def explain_access(
    services: ServicesOf,
    caller: CallerOf,
    name: Name,
    of: Annotated[
        str | None,
        Query(
            alias="caller",
            description="Somebody else, by token name or subject; for editors and auditors.",
            max_length=200,
        ),
    ] = None,
    as_groups: Annotated[
        str | None,
        Query(description="RBAC groups of somebody else, as `a,b`; for editors and auditors.", max_length=2000),
    ] = None,
    as_client: Annotated[str | None, Query(description="That somebody's MCP client.", max_length=200)] = None,
) -> ExplainOut:
    """The decision that calls and lists are made by, for you or for somebody with other groups."""
    asked = caller
    asks_for_another = of is not None or as_groups is not None or as_client is not None
    if asks_for_another and not any(has_role(services, caller, role) for role in (Role.EDITOR, Role.AUDITOR)):
        raise Denied("Only editors, auditors and admins may ask for somebody else.")
    if of is not None:
        known = services.tokens.named(of) if services.tokens is not None else None
        if known is None:
            raise NotFound(f"No token is called {of!r}, and none belongs to a subject of that name.")
        asked = known
    elif as_groups is not None or as_client is not None:
        names = frozenset(part.strip() for part in (as_groups or "").split(",") if part.strip())
        asked = Caller(subject="somebody", groups=names, client=as_client, kind=CallerKind.TOKEN)
    tool = seen_tool(services, caller, name) if asked is not caller else None
    snapshot = services.follower.snapshot
    decision = services.access.decide(snapshot, name, asked)
    if decision.reason == "unknown_tool":
        seen_tool(services, caller, name)  # says that there is none, with the nearest name
    # Of a tool that the caller may not know more of, only the decision is told.
    tool = tool or (snapshot.tools[name] if decision.allowed or has_role(services, caller, Role.EDITOR) else None)
    return ExplainOut(
        tool=name,
        caller=asked.subject,
        groups=sorted(asked.groups),
        allowed=decision.allowed,
        reason=decision.reason,
        message=decision.message,
        permissions=list(tool.permissions) if tool else None,
        group=tool.registered.group if tool else None,
        enabled=tool.enabled if tool else None,
    )


async def _invoked(request: Request, services: Services, caller: Caller, name: str, given: CallIn) -> CallResult:
    """Call the tool; a client that goes away ends the call, as it does for MCP clients."""
    results: list[CallResult] = []

    answers = {key: Answer(Action(each.action), each.content) for key, each in given.answers.items()}
    asks = Later(state=given.state, answers=answers)

    async def call() -> None:
        results.append(
            await services.invocation.invoke(name, given.arguments, caller, confirmed=given.confirmed, asks=asks)
        )
        group.cancel_scope.cancel()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            group.start_soon(watch)
    except ExceptionGroup as errors:
        # One thing went wrong, and its own handler knows what to answer.
        raise errors.exceptions[0] from None
    if not results:
        raise Refused(503, "The client left, so the call was ended.", code="cancelled")
    return results[0]


def _status(result: CallResult) -> int:
    if result.reason in _BY_REASON and result.outcome is not Outcome.OK:
        return _BY_REASON[result.reason]
    return _BY_OUTCOME.get(result.outcome, 200)


def _refuse(result: CallResult, status: int, headers: dict[str, str], services: Services, caller: Caller) -> NoReturn:
    message = result.message or f"The call ended with {result.outcome.value}."
    if status == 404:
        visible = services.access.visible(services.follower.snapshot, caller)
        message += did_you_mean(result.tool, (tool.registered.name for tool in visible))
    if status in _RETRY_AFTER:
        headers["Retry-After"] = _RETRY_AFTER[status]
    extra: dict[str, Any] = {
        "outcome": result.outcome.value,
        "reason": result.reason,
        "requestId": result.request_id,
    }
    if result.questions is not None:
        extra |= {"questions": {key: each.to_wire() for key, each in result.questions.items()}, "state": result.state}
        if result.reason == "confirmation_required":
            message += ' Send "confirmed": true (portoser call --yes) once a person agreed.'
        else:
            message += " Send the answers with the state, or use `portoser call`, which asks for them."
    raise Refused(status, message, code=result.reason or result.outcome.value, headers=headers, extra=extra)
