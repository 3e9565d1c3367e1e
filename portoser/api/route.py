"""The kind of route that all our routers are made of: bodies are small, and JSON is really JSON."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from portoser.catalog.volume import MOST_VALUES, json_values

MAX_BODY = 1536 * 1024
"""Bytes: a tool of 1 MiB, escaped as JSON, with room for the rest."""

_HEAD = "portoser.head"


class BoundedRoute(APIRoute):
    """A route that refuses large bodies (413), other types than JSON (415) and text that is not JSON (400).

    What answers GET answers HEAD too, by the same headers without the body, as RFC 9110 asks and probes expect.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the route is meant, by address and method."""
        return super().matches({**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that matched."""
        if scope.get("method") == "HEAD":
            scope = {**scope, "method": "GET", _HEAD: True}
        await super().handle(scope, receive, send)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap what FastAPI would do, handing it a request that checks itself."""
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def bounded(request: Request) -> Response:
            if takes_body:
                _check_head(request)
                request = _StrictRequest(request.scope, _Counter(request).receive)
            response = await handle(request)
            if _HEAD in request.scope:
                return Response(status_code=response.status_code, headers=response.headers)
            return response

        return bounded


class _Counter:
    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._seen = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > MAX_BODY:
            raise _too_large()
        return message


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body as JSON by RFC 8259: no NaN, no lone surrogates, no name twice; and no NUL, which cannot be stored.

        Raises:
            HTTPException: 400 with what is wrong; 413 where it holds more values than the server reads.
        """
        body = await self.body()
        if json_values(body) > MOST_VALUES:
            raise HTTPException(
                413,
                f"The body holds more than {MOST_VALUES:,} values, where keys count, and each list and object counts "
                "twice. Send less at once, or send it as one text.",
            )
        try:
            value = msgspec.json.decode(body)
            json.loads(body, object_pairs_hook=_once, parse_int=str)
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, f"The body is not JSON: {_reason(error)}.") from None
        if (b"\\u0000" in body or b"\x00" in body) and _holds_nul(value):
            raise HTTPException(400, "The body holds the character U+0000, which cannot be stored.")
        return value


def _check_head(request: Request) -> None:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BODY:
        raise _too_large()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise HTTPException(
            415,
            f"The body is sent with 'Content-Encoding: {encoding[:100]}': send it as it is, without one.",
            {"Accept-Encoding": "identity"},  # RFC 9110, section 15.5.16
        )
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    empty = length == "0" or (not length and "transfer-encoding" not in request.headers)
    if kind != "application/json" and not kind.endswith("+json") and not (empty and not kind):
        raise HTTPException(
            415, f"The body's type is {kind or 'not given'!r}: send it with 'Content-Type: application/json'."
        )


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Which of two a reader takes is not settled, so that two readers would see two bodies."""
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"an object has {name[:100]!r} twice")
        seen.add(name)


def _too_large() -> HTTPException:
    return HTTPException(413, f"The body is larger than {MAX_BODY} bytes ({MAX_BODY / 1024 / 1024:g} MiB).")


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    text = str(error)
    return "it ends too early, or holds half of a surrogate pair" if "truncated" in text else text


def _holds_nul(value: Any) -> bool:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "\x00" in item:
                return True
        elif isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return False
