"""What a route asks for: the services, the caller, and the caller's role."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request

from portoser.api.services import Services
from portoser.audit.entry import Entry, Event, Outcome
from portoser.catalog.caller import Caller
from portoser.catalog.errors import Denied
from portoser.catalog.policy import Role
from portoser.identity.middleware import caller_of


def bind(services: Services) -> Callable[[Request], Awaitable[None]]:
    """A dependency for a router whose routes are to work with ``services``."""

    async def bound(request: Request) -> None:
        request.state.services = services

    return bound


async def _services(request: Request) -> Services:
    services: Services = request.state.services
    return services


async def _caller(request: Request) -> Caller:
    return caller_of(request.scope)


ServicesOf = Annotated[Services, Depends(_services)]
CallerOf = Annotated[Caller, Depends(_caller)]


def has_role(services: Services, caller: Caller, role: Role) -> bool:
    """Whether the caller has a role by the policy in force."""
    return services.access.has_role(services.follower.snapshot, caller, role)


def is_insider(services: Services, caller: Caller) -> bool:
    """Whether the caller may know of tools that they may not call: editors, auditors and admins."""
    return any(has_role(services, caller, role) for role in (Role.EDITOR, Role.AUDITOR))


async def _insider(request: Request, services: ServicesOf, caller: CallerOf) -> Caller:
    if is_insider(services, caller):
        return caller
    message = f"{caller.name or caller.subject} may not read this: that takes the role 'editor' or 'auditor'."
    services.audit_writer.note(_refusal(request, caller, message))
    raise Denied(message)


def _require(role: Role, doing: str) -> Callable[[Request, Services, Caller], Awaitable[Caller]]:
    async def required(request: Request, services: ServicesOf, caller: CallerOf) -> Caller:
        if has_role(services, caller, role):
            return caller
        message = (
            f"{caller.name or caller.subject} may not {doing}: that takes the role {role.value!r}, "
            "which the policy gives to groups."
        )
        services.audit_writer.note(_refusal(request, caller, message))
        raise Denied(message)

    return required


def _refusal(request: Request, caller: Caller, message: str) -> Entry:
    return Entry(
        id=str(uuid.uuid4()),
        at=datetime.now(UTC),
        event=Event.REFUSED,
        caller=caller,
        outcome=Outcome.DENIED,
        tool=request.path_params.get("name") if "/tools/" in request.url.path else None,
        path=f"{request.method} {request.url.path[:200]}",
        reason="forbidden",
        error=message,
    )


AdminOf = Annotated[Caller, Depends(_require(Role.ADMIN, "do this"))]
EditorOf = Annotated[Caller, Depends(_require(Role.EDITOR, "change the registry"))]
InsiderOf = Annotated[Caller, Depends(_insider)]
AuditorOf = Annotated[Caller, Depends(_require(Role.AUDITOR, "read the audit log"))]
