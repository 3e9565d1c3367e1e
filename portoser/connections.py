"""Connections of clients that begin a request and do not bring it to its end."""

import asyncio
from typing import Any, Final

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger(__name__)

REQUEST_SECONDS: Final = 60.0
"""How long a client may take to send a request, from the connection's or the request's first byte to its last."""

IDLE_SECONDS: Final = 75
"""How long a connection is kept open between two requests: longer than a client or a load balancer keeps it (usually 60
at most), so that it is they who close it, and no request meets a connection that is just being closed.
"""

_TIMED_OUT: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 35\r\n\r\n"
    b"The request did not come to its end"
)


class Connection(HttpToolsProtocol):
    """Uvicorn's HTTP connection, closed where a request takes too long to arrive."""

    _deadline: asyncio.TimerHandle | None = None
    _arriving = False
    _earlier: Any = None
    """What was answered, or is being answered, when the request that arrives began; None before the first."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Part of asyncio's interface."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio's interface."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's interface."""
        super().data_received(data)
        if self._arriving:
            self._wait()
        elif self._deadline is not None:
            self._arrived()

    def on_message_begin(self) -> None:
        """Part of httptools' interface."""
        self._arriving = True
        self._earlier = self.cycle
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Part of httptools' interface."""
        self._arriving = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Part of uvicorn's interface."""
        if self._arriving:  # what it waited for is no fault of the request behind it
            self._arrived()
            self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self._late)

    def _arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if not self._arriving:  # a connection opened in advance, as browsers do
            self.transport.close()
            return
        if self._waits_for_an_earlier():
            self._wait()
            return
        log.info("http.request_timed_out", address=self.client[0] if self.client else None)
        cycle: Any = self.cycle
        if cycle is self._earlier or not cycle.response_started:
            self.transport.write(_TIMED_OUT)
        self.transport.close()

    def _waits_for_an_earlier(self) -> bool:
        """Whether an earlier request is still being answered: nothing is read meanwhile, and nothing may be said."""
        return bool(self.pipeline) or (self._earlier is not None and not self._earlier.response_complete)
