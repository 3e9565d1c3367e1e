"""Keeps strangers' web pages away: Host and Origin are checked before anything else sees a request.

A page that somebody opens in a browser can send requests to ``localhost``, and, by rebinding its DNS
name, read the answers. Both leave a trace in headers that a page cannot forge. See the MCP
specification, basic/transports, "Security Warning".
"""

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

log = structlog.get_logger(__name__)

LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
"""The names under which a server on this machine may be spoken to."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class HostOriginGuard:
    """ASGI middleware that refuses requests for other hosts (421) and from other origins (403).

    ``allowed_hosts`` are host names or addresses, without a port; ``*.example.org`` allows every name
    below it and ``*`` any host. ``allowed_origins`` are origins like ``https://example.org``; the
    request's own origin is always allowed, because that is the dashboard. A request without an
    ``Origin`` is not a page's and passes.
    """

    def __init__(self, app: ASGIApp, *, allowed_hosts: Iterable[str], allowed_origins: Iterable[str] = ()) -> None:
        self._app = app
        patterns = [pattern.strip().lower().rstrip(".") for pattern in allowed_hosts]
        self._any_host = "*" in patterns
        self._hosts = frozenset(
            _plain_host(pattern) for pattern in patterns if pattern and pattern != "*" and not pattern.startswith("*.")
        )
        self._suffixes = tuple(pattern[1:] for pattern in patterns if pattern.startswith("*."))
        self._origins = frozenset(_origin(origin) for origin in allowed_origins) - {None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer for the application where the request must not reach it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        host = hosts[0].decode("latin-1") if len(hosts) == 1 else ""
        if not self._host_allowed(host):
            log.warning("guard.host_refused", host=host[:200], path=scope["path"])
            await _refuse(
                scope,
                send,
                421,
                "Misdirected Request",
                "misdirected_request",
                f"This server does not answer for the host {host[:200]!r}. "
                "Use the address it announces, or add the name to its public URL.",
            )
            return
        for name, value in scope["headers"]:
            if name == b"origin" and not self._origin_allowed(value.decode("latin-1"), scope, host):
                origin = value.decode("latin-1")[:200]
                log.warning("guard.origin_refused", origin=origin, path=scope["path"])
                await _refuse(
                    scope,
                    send,
                    403,
                    "Forbidden Origin",
                    "forbidden_origin",
                    f"Pages of {origin!r} may not talk to this server. Add the origin to those that it allows.",
                )
                return
        await self._app(scope, receive, send)

    def _host_allowed(self, header: str) -> bool:
        host = _host_of(header)
        if host is None:
            return False
        return self._any_host or host in self._hosts or (bool(self._suffixes) and host.endswith(self._suffixes))

    def _origin_allowed(self, header: str, scope: Scope, host: str) -> bool:
        origin = _origin(header)
        if origin is None:
            return False
        return origin in self._origins or origin == _origin(f"{scope.get('scheme', 'http')}://{host}")


def _host_of(header: str) -> str | None:
    """The host of a ``Host`` header, lower case and without its port; None where it is not one."""
    try:
        parts = urlsplit(f"//{header}")
        if parts.username is not None or parts.path or parts.query or parts.fragment or not parts.hostname:
            return None
        _ = parts.port  # raises where it is not a number
    except ValueError:
        return None
    return _plain_host(parts.hostname)


def _plain_host(host: str) -> str:
    host = host.lower().rstrip(".")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _origin(text: str) -> tuple[str, str, int] | None:
    """The scheme, host and port of an origin; None for ``null`` and whatever else is not one."""
    try:
        parts = urlsplit(text.strip().lower())
        port = parts.port
    except ValueError:
        return None
    if not parts.scheme or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        return None
    return parts.scheme, _plain_host(parts.hostname), port or _DEFAULT_PORTS.get(parts.scheme, 0)


async def _refuse(scope: Scope, send: Send, status: int, title: str, code: str, detail: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": title})
        return
    problem = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "instance": scope["path"],
        "errors": [],
    }
    body = msgspec.json.encode(problem)
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
