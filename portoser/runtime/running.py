"""The call that a worker is busy with, as the server keeps it."""

import asyncio
import os
from collections.abc import Callable

from portoser.catalog.revision import Limits
from portoser.runtime import protocol
from portoser.runtime.clock import Clock
from portoser.runtime.protocol import Frame
from portoser.runtime.types import Events


class Running:
    """What the worker is busy with: one call, or one description."""

    __slots__ = (
        "_is_aside",
        "aside",
        "asked",
        "back",
        "budget",
        "cap",
        "clock",
        "cpu",
        "events",
        "id",
        "limits",
        "logs",
        "nonce",
        "power",
        "printed",
        "waiter",
    )  # fmt: skip

    def __init__(self, id: str, limits: Limits, events: Events | None, budget: int, cpu: float) -> None:  # noqa: A002
        self.id = id
        self.nonce = int.from_bytes(os.urandom(8))
        self.limits = limits
        self.events = events
        self.budget = budget
        """The most bytes of output, log messages and progress together."""
        self.cpu = cpu
        """Seconds of processor time."""
        self.cap = 2 * limits.result + protocol.ENVELOPE
        self.logs = bytearray()
        self.printed = 0
        self.asked = 0
        self.waiter: asyncio.Future[Frame] | None = None
        self.power: asyncio.Timeout | None = None
        """Ends the power's work early, where the worker that waits for it has ended."""
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

    def output(self) -> str:
        """What was printed, up to the limit, and how much more there was."""
        text = self.logs.decode("utf-8", "replace")
        missing = self.printed - len(self.logs)
        if missing <= 0:
            return text
        return f"{text}\n… truncated: {missing} bytes more were printed, and limits.logs keeps {self.limits.logs}.\n"


def _nothing() -> None:
    """Do nothing."""
