"""The two ends of an event-stream session, as the SDK's serving loop wants them."""

from collections.abc import Callable
from contextvars import Context, copy_context
from types import TracebackType
from typing import Final, NoReturn, Self

import anyio
from mcp.shared.message import SessionMessage

INBOX_SIZE: Final = 64
OUTBOX_SIZE: Final = 256
OUTBOX_BYTES: Final = 8 * 1024 * 1024
"""From so many unread bytes on, messages wait."""
UNREAD_BYTES: Final = 64 * 1024 * 1024
"""With so many, of messages that wait too, the session ends at once: somebody asks for much and reads nothing."""
STALL_SECONDS: Final = 30.0
"""How long a client may leave its stream unread, once the outbox is full, before its session ends."""


class Inbox:
    """Messages from the client. Each carries the context of the request that brought it.

    The SDK reads ``last_context`` and runs the message's handler in it: so a handler knows its caller.
    """

    def __init__(self) -> None:
        self._sender, self._receiver = anyio.create_memory_object_stream[tuple[Context, SessionMessage]](INBOX_SIZE)
        self.last_context: Context | None = None

    async def send(self, message: SessionMessage) -> None:
        """Hand a message in, in the current context.

        Raises:
            anyio.ClosedResourceError, anyio.BrokenResourceError: the session has ended.
        """
        await self._sender.send((copy_context(), message))

    def end(self) -> None:
        """Say that nothing more comes. The serving loop then cancels what runs, answers it, and returns."""
        self._sender.close()

    async def receive(self) -> SessionMessage | Exception:
        """The next message.

        Raises:
            anyio.EndOfStream: there are no more.
        """
        self.last_context, message = await self._receiver.receive()
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Close both ends."""
        self._sender.close()
        self._receiver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


class Outbox:
    """Messages to the client, as the bytes of server-sent events.

    ``on_stall`` ends the session of a client that does not read; it is told how many bytes were not read.
    """

    def __init__(self, on_stall: Callable[[int], None]) -> None:
        self._sender, self._receiver = anyio.create_memory_object_stream[bytes](OUTBOX_SIZE)
        self._on_stall = on_stall
        self._queued = 0
        self._unread = 0
        self._has_stalled = False
        self._read = anyio.Event()

    async def send(self, item: SessionMessage, /) -> None:
        """Queue a message; waits for a slow client, but not forever.

        Raises:
            anyio.ClosedResourceError, anyio.BrokenResourceError: the session has ended.
        """
        event = _event("message", item.message.model_dump_json(by_alias=True, exclude_unset=True))
        if self._unread and self._unread + len(event) > UNREAD_BYTES:
            self._stall()
        self._unread += len(event)
        try:
            await self._put(event)
        except BaseException:
            self._unread -= len(event)
            raise

    async def _put(self, event: bytes) -> None:
        with anyio.move_on_after(STALL_SECONDS) as waiting:
            while self._queued >= OUTBOX_BYTES:
                self._read = anyio.Event() if self._read.is_set() else self._read
                await self._read.wait()
            self._queued += len(event)
            try:
                self._sender.send_nowait(event)
            except anyio.WouldBlock:
                try:
                    await self._sender.send(event)
                except BaseException:
                    self._queued -= len(event)
                    raise
        if waiting.cancelled_caught:
            self._stall()

    def _stall(self) -> NoReturn:
        if not self._has_stalled:  # it is told once, however many messages wait
            self._has_stalled = True
            self._on_stall(self._unread)
        raise anyio.BrokenResourceError

    async def events(self) -> bytes:
        """Everything that waits to be written, at least one event.

        Raises:
            anyio.EndOfStream: the session has ended and all of it was read.
        """
        waiting = [await self._receiver.receive()]
        while True:
            try:
                waiting.append(self._receiver.receive_nowait())
            except (anyio.WouldBlock, anyio.EndOfStream):
                break
        read = sum(map(len, waiting))
        self._queued -= read
        self._unread -= read
        self._read.set()
        return b"".join(waiting)

    def stop_reading(self) -> None:
        """The client is gone: whoever still sends learns it."""
        self._receiver.close()
        self._queued = 0
        self._read.set()

    async def aclose(self) -> None:
        """No more messages; what waits can still be read."""
        self._sender.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


def endpoint_event(path: str) -> bytes:
    """The first event of a stream: where the client posts its messages."""
    return _event("endpoint", path)


def _event(name: str, data: str) -> bytes:
    # JSON in one line: its line breaks are escaped, so the data needs no splitting.
    return f"event: {name}\r\ndata: {data}\r\n\r\n".encode()
