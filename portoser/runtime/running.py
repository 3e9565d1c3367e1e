"""The call that a worker is busy with, as the server keeps it."""

import asyncio
import os

from portoser.catalog.revision import Limits
from portoser.runtime import protocol
from portoser.runtime.protocol import Frame
from portoser.runtime.types import Events


class Running:
    """What the worker is busy with: one call, or one description."""

    __slots__ = ("asked", "budget", "cap", "events", "id", "limits", "logs", "nonce", "power", "printed", "waiter")

    def __init__(self, id: str, limits: Limits, events: Events | None, budget: int) -> None:  # noqa: A002
        self.id = id
        self.nonce = int.from_bytes(os.urandom(8))
        self.limits = limits
        self.events = events
        self.budget = budget
        """The most bytes of output, log messages and progress together."""
        self.cap = 2 * limits.result + protocol.ENVELOPE
        self.logs = bytearray()
        self.printed = 0
        self.asked = 0
        self.waiter: asyncio.Future[Frame] | None = None
        self.power: asyncio.Timeout | None = None
        """Ends the power's work early, where the worker that waits for it has ended."""

    def output(self) -> str:
        """What was printed, up to the limit, and how much more there was."""
        text = self.logs.decode("utf-8", "replace")
        missing = self.printed - len(self.logs)
        if missing <= 0:
            return text
        return f"{text}\n… truncated: {missing} bytes more were printed, and limits.logs keeps {self.limits.logs}.\n"
