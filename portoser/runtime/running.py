"""The call that a worker is busy with, as the server keeps it."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

from portoser.catalog.allowance import Allowance
from portoser.runtime import protocol
from portoser.runtime.clock import Clock
from portoser.runtime.protocol import Frame
from portoser.runtime.types import Events


class WorkerEnded(Exception):
    """The worker, or its work on this call, ended before it answered. ``reason`` is one of ``Execution``'s words."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        self.message = message
        super().__init__(f"{reason}: {message}")


class Running:
    """What the worker is busy with: one call, or one description."""

    __slots__ = (
        "_cancelling",
        "_is_aside",
        "_is_power_ended",
        "_power",
        "allowance",
        "answered",
        "aside",
        "asked",
        "back",
        "budget",
        "cap",
        "clock",
        "ended",
        "events",
        "frame",
        "id",
        "logs",
        "nonce",
        "printed",
        "waiter",
    )

    def __init__(self, id: str, allowance: Allowance, events: Events | None) -> None:  # noqa: A002
        self.id = id
        self.nonce = int.from_bytes(os.urandom(8))
        self.allowance = allowance
        self.events = events
        self.budget = allowance.output
        """The most bytes of output, log messages and progress together."""
        self.cap = 2 * allowance.result + protocol.ENVELOPE
        self.logs = bytearray()
        self.printed = 0
        self.asked = 0
        self.answered: int | None = 0
        """Where the last answer of a power ends, among the bytes that its worker was sent; None until it is sent."""
        self.waiter: asyncio.Future[Frame] | None = None
        self.frame: Frame | None = None
        """What came while nobody waited for it."""
        self._power: asyncio.Task[Any] | None = None
        """What a power works in, cancelled where the worker that waits for it has ended."""
        self._cancelling = 0
        """How often others had cancelled that before."""
        self._is_power_ended = False
        self.ended: WorkerEnded | None = None
        """It has its outcome; what its worker still says of it is not listened to."""
        self.clock: Clock | None = None
        self.aside: Callable[[], bool] | None = None
        """Lets another call run while this one waits for a person, and answers whether it could."""
        self.back: Callable[[], None] = _nothing
        """Takes that back, when the call goes on."""
        self._is_aside = False

    def pause(self) -> None:
        """A person is waited for: what the call may take does not pass. Each pause needs its ``resume``."""
        if self.clock is not None and self.clock.pause() and self.aside is not None:
            self._is_aside = self.aside()

    def resume(self) -> None:
        """The person has answered."""
        if self.clock is not None and self.clock.resume() and self._is_aside:
            self._is_aside = False
            self.back()

    def hand_over(self, frame: Frame) -> None:
        """Give a frame to whoever waits for the call, or will."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(frame)
        else:
            self.frame = frame

    def end(self, ended: WorkerEnded) -> None:
        """Have whoever waits for the call hear that it has ended."""
        if self.ended is not None:
            return
        self.ended = ended
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(ended)
        if self._power is not None:
            self._is_power_ended = True
            self._power.cancel()

    def power_begins(self) -> None:
        """A power works for it from now on, in this task."""
        self._power = task = asyncio.current_task()
        self._cancelling = task.cancelling() if task is not None else 0

    def power_ends(self) -> bool:
        """The power has done its work, or has been cancelled; whether that was because of ``end``, and nothing else."""
        task, self._power = self._power, None
        if not self._is_power_ended or task is None:
            return False
        return task.uncancel() <= self._cancelling

    def print(self, piece: bytes) -> None:
        """Keep what it printed, up to the limit."""
        self.printed += len(piece)
        room = self.allowance.logs - len(self.logs)
        if room > 0:
            self.logs += piece[:room]

    def output(self) -> str:
        """What was printed, up to the limit, and how much more there was."""
        text = self.logs.decode("utf-8", "replace")
        missing = self.printed - len(self.logs)
        if missing <= 0:
            return text
        kept = self.allowance.logs
        return f"{text}\n… truncated: {missing} bytes more were printed, and limits.logs keeps {kept}.\n"


def _nothing() -> None:
    """Do nothing."""
