"""The frames that come from a worker, cut out of its channel's bytes."""

import asyncio

from portoser.runtime import protocol
from portoser.runtime.protocol import HEADER, Frame, ProtocolViolation

_BUFFER = 16 * 1024


class Frames(asyncio.BufferedProtocol):
    """Reads frames, and believes nothing that comes: not their length, not their type, not their shape."""

    def __init__(self) -> None:
        self.cap = protocol.MESSAGE_CAP
        """The most bytes that a result may have."""
        self._buffer = bytearray(_BUFFER)
        self._filled = 0

    def received(self, frame: Frame, length: int) -> bool:
        """Take a frame; whether more are wanted. Raises ProtocolViolation where it is out of place."""
        raise NotImplementedError

    def violated(self, error: ProtocolViolation) -> None:
        """Hear that what came is no frame, or is out of place."""
        raise NotImplementedError

    def get_buffer(self, sizehint: int) -> memoryview:
        """Part of asyncio's interface."""
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Part of asyncio's interface."""
        self._filled += nbytes
        try:
            self._parse()
        except ProtocolViolation as error:
            self.violated(error)

    def _parse(self) -> None:
        position = 0
        needed = HEADER.size
        while self._filled - position >= HEADER.size:
            length, kind = HEADER.unpack_from(self._buffer, position)
            cap = self.cap if kind in protocol.LARGE_FRAMES else protocol.MESSAGE_CAP
            if length > cap:
                raise ProtocolViolation(f"a frame of {length} bytes is larger than the {cap} that it may have")
            needed = HEADER.size + length
            if self._filled - position < needed:
                break
            start = position + HEADER.size
            position += needed
            needed = HEADER.size
            body: bytes | memoryview = memoryview(self._buffer)[start:position]
            if length > _BUFFER and position == self._filled:
                self._buffer = bytearray(_BUFFER)  # the frame keeps the old one: copying megabytes takes its time
                self._filled = position = 0
            else:
                body = bytes(body)
            if not self.received(protocol.decode_from_worker(kind, body), length):
                return
        rest = self._filled - position
        if needed > len(self._buffer) or (len(self._buffer) > _BUFFER and max(rest, needed) <= _BUFFER):
            grown = bytearray(max(needed, _BUFFER))
            grown[:rest] = self._buffer[position : self._filled]
            self._buffer = grown
        elif position:
            self._buffer[:rest] = self._buffer[position : self._filled]
        self._filled = rest
