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
from portoser.identity.authenticate import Authenticator, Unauthenticated

log = structlog.get_logger(__name__)

OPEN_PATHS = frozenset({"/health", "/ready"})
"""What everybody may ask; probes carry no token."""

_LOOPBACK_PATHS = frozenset({"/metrics"})
_FORWARDING = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip", b"x-forwarded-host", b"via"})

NOBODY = Caller(subject="nobody", name="nobody", kind=CallerKind.TOKEN)
"""Who asks on an open path while auth is on: not ``anonymous``, to whom everything is open, but in no group at all."""

_POLICY_VIOLATION = 1008


class IdentityMiddleware:
    """ASGI middleware: ``scope["state"]["caller"]`` of each request below it is who is asking.

    ``on_failure`` is told of each failed sign-in, as an entry for the audit log; it must not block.
    """

    def __init__(
        self, app: ASGIApp, authenticator: Authenticator, *, on_failure: Callable[[Entry], None] | None = None
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._on_failure = on_failure

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
                await _refuse(scope, send, error)
                return
            caller = msgspec.structs.replace(NOBODY, address=self._authenticator.address(scope))
        await self._app({**scope, "state": {**scope.get("state", {}), "caller": caller}}, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        return path in OPEN_PATHS or (path in _LOOPBACK_PATHS and self._is_local(scope))

    def _is_local(self, scope: Scope) -> bool:
        """Whether a request comes from this machine itself, and not through a proxy that runs here."""
        client = scope.get("client")
        forwarded = any(name in _FORWARDING for name, _ in scope["headers"])
        return client is not None and is_loopback(client[0]) and not forwarded

    def _record(self, scope: Scope, error: Unauthenticated) -> None:
        address = self._authenticator.address(scope)
        log.info("identity.signin_failed", reason=error.reason, address=address, path=scope["path"][:200])
        if self._on_failure is None or error.reason == "missing":
            return  # who sends no credential at all has not tried to sign in: clients ask so to learn how to
        self._on_failure(
            Entry(
                id=str(uuid.uuid4()),
                at=datetime.now(UTC),
                event=Event.SIGNIN_FAILED,
                caller=msgspec.structs.replace(NOBODY, address=address),
                outcome=Outcome.DENIED,
                reason=error.reason,
                error=str(error),
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


async def _refuse(scope: Scope, send: Send, error: Unauthenticated) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "unauthenticated"})
        return
    challenge = 'Bearer realm="portoser"'  # RFC 6750, section 3: no error code where no credential was sent
    if error.reason != "missing":
        code = "invalid_request" if error.reason == "malformed" else "invalid_token"
        challenge += f', error="{code}"'
    status = HTTPStatus.UNAUTHORIZED
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": str(error),
        "code": error.reason,
        "errors": [],
    }
    body = msgspec.json.encode(problem)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"www-authenticate", challenge.encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
