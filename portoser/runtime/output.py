"""What a worker prints: read from its pipe, kept up to a limit, and given to the call that it belongs to."""

import asyncio
import os
import select
from collections.abc import Callable, Mapping

from portoser.runtime.running import Running

_READ = 64 * 1024
_IDLE = 64 * 1024
"""The most bytes that a worker may print while it has no call."""
TOO_MUCH = "The tool printed or logged more than a call may. Print less."


class Output:
    """The end of a worker's pipe. What comes out of it belongs to the call that runs, where one runs alone.

    Where several do, it belongs to nobody: the worker tells whose is what Python prints, by frames.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        descriptor: int,
        running: Mapping[str, Running],
        kill: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._running = running
        self._kill = kill
        self._nobodys = 0
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._is_closed = False
        loop.add_reader(descriptor, self._on_readable)

    def close(self) -> None:
        """Stop listening."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def call_begins(self) -> None:
        """Forget what was nobody's: it is counted between two calls, and of those that run together."""
        self._nobodys = 0

    def read(self) -> None:
        """Read what is in the pipe now: all that was printed before the frame that is being handled."""
        # Most calls print nothing: to ask costs less than an exception.
        while not self._is_closed and self._poll.poll(0) and self._read_piece():
            if any(running.budget < 0 for running in self._running.values()):
                return

    def _on_readable(self) -> None:
        if self._read_piece() is None:
            self._loop.remove_reader(self._descriptor)

    def _read_piece(self) -> int | None:
        """Read once: how many bytes there were; 0 for none now, None for none any more."""
        try:
            piece = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return 0
        if not piece:
            return None
        if len(self._running) != 1:
            self._belongs_to_nobody(len(piece))
            return len(piece)
        (running,) = self._running.values()
        running.print(piece)
        running.budget -= len(piece)
        if running.budget < 0:
            self._kill("output_limit", TOO_MUCH)
        return len(piece)

    def _belongs_to_nobody(self, size: int) -> None:
        self._nobodys += size
        if not self._running and self._nobodys > _IDLE:
            self._kill("output_limit", "The tool printed while it had no call.")
        elif self._running and self._nobodys > max(running.allowance.output for running in self._running.values()):
            self._kill("output_limit", TOO_MUCH)
