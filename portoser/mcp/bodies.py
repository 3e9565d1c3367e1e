"""Messages from clients, looked at before they are read: one that holds too much would keep everybody else waiting."""

from typing import Any, Final

import msgspec
from mcp_types import INVALID_PARAMS, ErrorData, JSONRPCError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portoser.catalog.volume import MOST_VALUES, json_values

_UNCHECKED: Final = MOST_VALUES // 2
"""So many bytes hold no more than may be, whatever they are."""


class _Envelope(msgspec.Struct):
    id: int | str | None = None


_envelope = msgspec.json.Decoder(_Envelope)


def too_much(body: bytes) -> JSONRPCError | None:
    """The answer to a message that holds more values than the server reads; None where it does not."""
    if json_values(body) <= MOST_VALUES:
        return None
    try:
        request_id = _envelope.decode(body).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        request_id = None
    message = (
        f"The message holds more than {MOST_VALUES:,} values, where keys count, and each list and object counts "
        "twice. Send less at once, or send it as one text."
    )
    return JSONRPCError(
        jsonrpc="2.0", id=request_id, error=ErrorData(code=INVALID_PARAMS, message=message, data={"most": MOST_VALUES})
    )


class BoundedBodies:
    """ASGI: answers in place of ``app`` where a message holds too much. ``max_body`` bytes are looked at; what is
    larger is the app's to refuse.
    """

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        length = Headers(scope=scope).get("content-length", "")
        if scope["method"] != "POST" or (length.isdecimal() and int(length) <= _UNCHECKED):
            await self._app(scope, receive, send)
            return
        read: list[Message] = []
        size = 0
        more = True
        while more and size <= self._max_body:
            message = await receive()
            read.append(message)
            size += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)
        body = b"".join(message.get("body", b"") for message in read)
        refusal = too_much(body) if size <= self._max_body else None
        if refusal is not None:
            answer = refusal.model_dump_json(by_alias=True, exclude_unset=True)
            await Response(answer, 400, media_type="application/json")(scope, receive, send)
            return
        read.reverse()

        async def replayed() -> Any:
            return read.pop() if read else await receive()

        await self._app(scope, replayed, send)
