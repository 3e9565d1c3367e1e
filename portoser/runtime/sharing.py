"""Workers that run several calls of one caller at once, as ``limits.share`` says. Such a worker holds one slot."""

import asyncio
import time
from typing import TypeAlias

from portoser.catalog.errors import Unavailable
from portoser.runtime.pool import Key, Pool
from portoser.runtime.process import WorkerProcess

_LONGEST = 5.0
"""Seconds after which a worker takes no more calls while others wait for a slot: it would hold its own for ever."""

Ready: TypeAlias = asyncio.Future[WorkerProcess]


class OpenedInVain(Exception):
    """Whoever was to open the worker has gone: another one must."""


class Shared:
    """One worker, or one that is on its way, and the calls that have it."""

    __slots__ = ("aside", "began", "calls", "is_kept", "key", "most", "ready", "waiting")

    def __init__(self, key: Key, most: int) -> None:
        self.key = key
        self.most = most
        self.calls = 1
        self.waiting = 0
        """How many of the calls wait for a person."""
        self.aside = False
        """All of them do, and its slot is another's meanwhile."""
        self.is_kept = True
        """Whether it may be given more calls."""
        self.began: float | None = None
        """When it got its slot."""
        self.ready: Ready = asyncio.get_running_loop().create_future()


class Sharing:
    """Finds the worker that a call may join, and holds its slot until the last of its calls has ended."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._open: dict[Key, list[Shared]] = {}

    def join(self, key: Key, most: int) -> tuple[Shared, bool]:
        """A worker for a call, and whether the call is its first: then it must be opened, by ``opened`` or ``failed``.

        ``part`` must follow.
        """
        for shared in self._open.get(key, ()):
            if shared.calls < most and self._takes_more(shared):
                shared.calls += 1
                self._settle(shared)
                return shared, False
        shared = Shared(key, most)
        self._open.setdefault(key, []).append(shared)
        return shared, True

    def _takes_more(self, shared: Shared) -> bool:
        if not shared.ready.done():
            return True
        if not shared.is_kept or shared.ready.exception() is not None or shared.began is None:
            return False
        is_long = self._pool.queued > 0 and time.perf_counter() - shared.began > _LONGEST
        return not is_long and not self._pool.is_worn_out(shared.ready.result())

    def opened(self, shared: Shared, worker: WorkerProcess) -> None:
        """The first call has its slot, and the worker its program."""
        shared.ready.set_result(worker)

    def failed(self, shared: Shared, error: BaseException) -> None:
        """There will be no worker: the others hear why, or that one of them must open it."""
        if not shared.ready.done():
            shared.ready.set_exception(error if isinstance(error, Unavailable) else OpenedInVain())
            shared.ready.exception()  # nobody may be there to hear it

    def waits(self, shared: Shared) -> bool:
        """One of the calls begins to wait for a person."""
        shared.waiting += 1
        self._settle(shared)
        return True

    def goes_on(self, shared: Shared) -> None:
        """The person has answered."""
        shared.waiting -= 1
        self._settle(shared)

    def part(self, shared: Shared, *, keep: bool) -> None:
        """A call has ended. After the last one the worker is given back, and its slot."""
        shared.calls -= 1
        shared.is_kept &= keep
        self._settle(shared)
        if shared.calls:
            return
        others = self._open[shared.key]
        others.remove(shared)
        if not others:
            del self._open[shared.key]
        if shared.ready.done() and shared.ready.exception() is None:
            self._pool.give_back(shared.ready.result(), shared.key if shared.is_kept else None)
        if shared.began is not None:
            self._pool.leave(shared.began)

    def _settle(self, shared: Shared) -> None:
        all_wait = 0 < shared.calls == shared.waiting
        if all_wait and not shared.aside:
            shared.aside = self._pool.step_aside()
        elif shared.aside and not all_wait:
            shared.aside = False
            self._pool.step_back()
