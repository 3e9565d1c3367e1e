"""Gives every request its caller, and answers 401 to those that have none."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from portoser.audit.entry import Entry, Event, Outcome
from portoser.catalog.caller import Caller, CallerKind
from portoser.catalog.errors import PortoserError
from portoser.identity.address import is_loopback
from portoser.identity.attempts import FailedSignIns
from portoser.identity.authenticate import Authenticator, Unauthenticated, Unreadable

log = structlog.get_logger(__name__)

OPEN_PATHS = frozenset({"/health", "/ready"})
"""What everybody may ask; probes carry no token."""

_DOCUMENTS = ("/openapi.json", "/docs")
"""Open too: they tell what the software does, and nothing of this installation; a browser sends no token for them."""

LOOPBACK_PATHS = frozenset({"/metrics"})
"""What this machine itself may ask without a token."""

_FORWARDING = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip", b"x-forwarded-host", b"via"})

NOBODY = Caller(subject="nobody", name="nobody", kind=CallerKind.TOKEN)
"""Who asks on an open path while auth is on: not ``anonymous``, to whom everything is open, but in no group at all."""

_POLICY_VIOLATION = 1008


class IdentityMiddleware:
    """ASGI middleware: ``scope["state"]["caller"]`` of each request below it is who is asking.

    ``on_failure`` is told of failed sign-ins, as entries for the audit log; it must not block. Of a flood it is told a
    part, and how many there were besides.
    """

    def __init__(
        self, app: ASGIApp, authenticator: Authenticator, *, on_failure: Callable[[Entry], None] | None = None
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._on_failure = on_failure
        self._failures = FailedSignIns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        try:
            caller = self._authenticator.caller(scope)
        except Unauthenticated as error:
            if not self._is_open(scope):
                self._record(scope, error)
                await _refuse(scope, send, HTTPStatus.UNAUTHORIZED, str(error), error.reason)
                return
            caller = msgspec.structs.replace(NOBODY, address=self._authenticator.address(scope))
        except Unreadable as error:
            await _refuse(scope, send, HTTPStatus.BAD_REQUEST, str(error), "bad_request")
            return
        await self._app({**scope, "state": {**scope.get("state", {}), "caller": caller}}, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        if path in OPEN_PATHS or path in _DOCUMENTS or path.startswith(f"{_DOCUMENTS[-1]}/"):
            return True
        return path in LOOPBACK_PATHS and self._is_local(scope)

    def _is_local(self, scope: Scope) -> bool:
        """Whether a request comes from this machine itself, and not through a proxy that runs here."""
        client = scope.get("client")
        forwarded = any(name in _FORWARDING for name, _ in scope["headers"])
        return client is not None and is_loopback(client[0]) and not forwarded

    def _record(self, scope: Scope, error: Unauthenticated) -> None:
        if error.reason == "missing":
            return  # who sends no credential at all has not tried to sign in: clients ask so to learn how to
        address = self._authenticator.address(scope)
        left_out = self._failures.left_out(address)
        if left_out is None:
            return
        log.info("identity.signin_failed", reason=error.reason, address=address, path=scope["path"][:200])
        if self._on_failure is None:
            return
        besides = f" {left_out:,} more failed before that, and are not recorded one by one." if left_out else ""
        self._on_failure(
            Entry(
                id=str(uuid.uuid4()),
                at=datetime.now(UTC),
                event=Event.SIGNIN_FAILED,
                caller=msgspec.structs.replace(NOBODY, address=address),
                outcome=Outcome.DENIED,
                reason=error.reason,
                error=f"{error}{besides}",
                path=scope["path"][:200],
            )
        )


def caller_of(scope: Scope) -> Caller:
    """Who is asking, by the middleware.

    Raises:
        PortoserError: the request did not come through it, so nobody may be assumed.
    """
    caller = scope.get("state", {}).get("caller")
    if not isinstance(caller, Caller):
        raise PortoserError("This request has no caller: it did not pass the identity middleware.")
    return caller


async def _refuse(scope: Scope, send: Send, status: HTTPStatus, detail: str, code: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": status.phrase})
        return
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        "instance": scope["path"],
        "errors": [],
    }
    body = msgspec.json.encode(problem)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", _challenge(code).encode()))
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _challenge(reason: str) -> str:
    """RFC 6750, section 3: no error code where no credential was sent."""
    challenge = 'Bearer realm="portoser"'
    if reason == "missing":
        return challenge
    return f'{challenge}, error="{"invalid_request" if reason == "malformed" else "invalid_token"}"'
