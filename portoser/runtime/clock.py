"""How long a call may still take: by the wall, and of the processor."""

import asyncio
import os
from collections.abc import Callable
from typing import TypeAlias

Ended: TypeAlias = Callable[[str, str], None]
"""Told the reason and the message when a call has used up one of its times."""

_PROCESSORS = os.cpu_count() or 1
_EARLY = 0.002
"""Seconds by which an event loop's timer may come too soon."""
_SHORTEST = 0.05
"""Seconds between two looks at the processor time."""


class Clock:
    """Ends a call that takes too long: after ``wall`` seconds, or ``processor`` seconds of its worker's processor time.

    What ``used`` says is measured by the kernel, from outside of the worker, and looked at only where a call takes long
    enough to have used it up: a short call costs one timer. The wall clock stands still between ``pause`` and
    ``resume``, while a person is waited for; the processor's does not.
    """

    __slots__ = ("_ended", "_loop", "_pauses", "_processor", "_since", "_timer", "_used", "_wall", "_wall_left")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, wall: float, processor: float, used: Callable[[], float], ended: Ended
    ) -> None:
        self._loop = loop
        self._wall = self._wall_left = wall
        self._processor = processor
        self._used = used
        self._ended = ended
        self._pauses = 0
        self._since = loop.time()
        self._timer: asyncio.TimerHandle | None = loop.call_later(min(wall, processor / _PROCESSORS), self._look)

    def pause(self) -> bool:
        """Stop the wall clock; whether it went until now. Pauses may lie within each other."""
        self._pauses += 1
        if self._pauses > 1:
            return False
        self._wall_left -= self._loop.time() - self._since
        self._look_again()
        return True

    def resume(self) -> bool:
        """Let the wall clock go on, where this ends the outermost pause; whether it does."""
        self._pauses -= 1
        if self._pauses:
            return False
        self._since = self._loop.time()
        self._look_again()
        return True

    def stop(self) -> None:
        """The call has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if not self._pauses and self._loop.time() - self._since >= self._wall_left - _EARLY:
            self._timer = None
            self._ended("timeout", f"The tool took longer than the {self._wall:g} s that it may.")
        elif self._used() >= self._processor:
            self._timer = None
            self._ended(
                "cpu_limit", f"The tool used more than the {self._processor:g} s of processor time that it may."
            )
        else:
            self._look_again()

    def _look_again(self) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        # Its threads run on all processors at most.
        wait = max((self._processor - self._used()) / _PROCESSORS, _SHORTEST)
        if not self._pauses:
            wait = min(wait, max(self._wall_left - (self._loop.time() - self._since), 0.0))
        self._timer = self._loop.call_later(wait, self._look)
