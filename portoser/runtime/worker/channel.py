"""The worker's end of the socket: blocking, and all that its single thread waits on."""

import socket
import threading
from typing import Any

from portoser import tool
from portoser.catalog.volume import msgpack_values
from portoser.runtime import protocol
from portoser.runtime.protocol import HEADER, LEVELS, CallFrame, Frame, Log, Progress, Rpc, RpcResult
from portoser.runtime.worker.asking import answer_of, form_of

_READ = 64 * 1024
_LONGEST_LOG = 100_000
"""How many characters are left of a log message that is too long to be sent."""


class Closed(Exception):
    """The server has closed the channel: there is nothing left to do."""


class Channel:
    """Reads and writes frames."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._sending = threading.Lock()
        self.asking = threading.Lock()
        """Held by the thread of the tool that asks a power, until it has the answer."""

    def fileno(self) -> int:
        """The descriptor to wait on for ``receive_ready``."""
        return self._sock.fileno()

    def received(self) -> list[Frame]:
        """The frames that have come already."""
        return list(iter(self._next, None))

    def receive(self) -> Frame:
        """Wait for the next frame.

        Raises:
            Closed: at the end of the channel.
        """
        frame = self._next()
        while frame is None:
            self._buffer += self._read()
            frame = self._next()
        return frame

    def receive_ready(self) -> list[Frame]:
        """The frames that are there when something has come: none, where one has come in part.

        Raises:
            Closed: at the end of the channel.
        """
        self._buffer += self._read()
        return self.received()

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < HEADER.size:
            return None
        length, kind = HEADER.unpack_from(buffer)
        end = HEADER.size + length
        if len(buffer) < end:
            return None
        body = bytes(memoryview(buffer)[HEADER.size : end])
        del buffer[:end]
        frame: Frame = protocol.FROM_SERVER[kind].decode(body)
        return frame

    def _read(self) -> bytes:
        read = self._sock.recv(_READ)
        if not read:
            raise Closed
        return read

    def send(self, frame: Frame) -> None:
        """Send a frame, whole.

        Raises:
            TypeError, ValueError, OverflowError, RecursionError: it cannot be sent; nothing was.
        """
        encoded = protocol.encode(frame)
        if frame.TYPE not in protocol.LARGE_FRAMES:
            _check(encoded, protocol.most_values(frame.TYPE))
        with self._sending:
            self._sock.sendall(encoded)


class RunningCall:
    """The call that runs, as ``portoser.tool`` sees it."""

    def __init__(self, channel: Channel, frame: CallFrame) -> None:
        self._channel = channel
        self._id = frame.id
        self._nonce = frame.nonce
        self._asked = 0
        self._caller = frame.caller
        self.request_id = frame.request_id

    @property
    def caller(self) -> tool.Caller:
        """Who called."""
        return tool.Caller(self._caller.subject, self._caller.name, frozenset(self._caller.groups))

    def log(self, level: str, message: str, data: dict[str, Any] | None) -> None:
        """Send a log message to the client."""
        if level not in LEVELS:
            raise ValueError(f"{level!r} is not a log level; the levels are {', '.join(sorted(LEVELS))}.")
        try:
            self._channel.send(Log(self._id, self._nonce, level, message, data))
        except (TypeError, ValueError, OverflowError, RecursionError):
            shown = {"data": _printed(data)} if data is not None else None
            self._channel.send(Log(self._id, self._nonce, level, message[:_LONGEST_LOG], shown))

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        """Report progress."""
        self._channel.send(Progress(self._id, self._nonce, done, total, message))

    def ask(self, power: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Ask a power and wait for the answer; threads of the tool take turns."""
        with self._channel.asking:
            frame = Rpc(self._id, self._nonce, self._asked + 1, power, method, list(args), kwargs)
            try:
                self._channel.send(frame)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise tool.PowerError(f"{power}.{method}() cannot be sent these arguments: {error}") from None
            self._asked += 1
            answer = self._channel.receive()
        if not isinstance(answer, RpcResult):
            raise Closed
        if answer.error is not None:
            raise tool.PowerError(answer.error)
        return answer.value

    def elicit(self, message: str, schema: Any, key: str | None) -> tool.Answer:
        """Ask the caller's user and wait for the answer."""
        form, read = form_of(schema)
        try:
            reply = self.ask("ctx", "elicit", (message, form, key), {})
        except tool.PowerError as error:
            raise tool.ElicitError(str(error)) from None
        return answer_of(reply, read)


def _check(encoded: bytearray, most: int) -> None:
    """Refuse here what the server would end the worker for.

    Raises:
        ValueError: for more than a frame may hold.
    """
    size = len(encoded) - HEADER.size
    if size > protocol.MESSAGE_CAP:
        raise ValueError(f"{size:,} bytes, where {protocol.MESSAGE_CAP:,} can be sent")
    if msgpack_values(bytes(encoded[HEADER.size :]), most) > most:
        raise ValueError(f"more than the {most:,} values that can be sent")


def _printed(value: object) -> str:
    try:
        return repr(value)[:1000]
    except Exception:  # noqa: BLE001 - __repr__ is the tool's code: it may raise anything
        return "<data that cannot be sent>"
