"""Which worker runs which call: slots, handed out first come first served, and warm workers, kept by last use."""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from portoser.catalog.errors import Unavailable
from portoser.runtime.process import WorkerProcess


class Key(NamedTuple):
    """What a worker is bound to. What a tool leaves behind in its process, it leaves to the same caller alone: that a
    tool calls itself read-only says nothing of what it remembers.
    """

    digest: str
    subject: str


class Rest(NamedTuple):
    """What an idle worker holds, and since when, by the monotonic clock."""

    key: Key
    since: float


class Pool:
    """Bounds how many calls run and how many wait, and keeps workers warm.

    ``slots`` calls run at once; ``queue`` more wait, in the order in which they came. At most ``processes`` workers
    live; where one more is needed, the idle one that was used longest ago makes room. One that was not used for
    ``longest_rest`` seconds is ended, so that its memory comes back.
    """

    def __init__(
        self,
        spawn: Callable[[bool], Awaitable[WorkerProcess]],
        *,
        slots: int,
        queue: int,
        processes: int,
        spares: int,
        calls_per_worker: int,
        oldest: float,
        longest_rest: float = 600.0,
    ) -> None:
        self._spawn = spawn
        self._slots = slots
        self._queue = queue
        self._processes = max(processes, slots)
        self._spare_target = spares
        self._calls_per_worker = calls_per_worker
        self._oldest = oldest
        self._longest_rest = longest_rest
        self._stopping = False
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: OrderedDict[WorkerProcess, Rest] = OrderedDict()
        self._by_key: dict[Key, list[WorkerProcess]] = {}
        self._spares: deque[WorkerProcess] = deque()
        self._refill = asyncio.Event()
        self._pace = 0.05
        """How long a call takes, in seconds: a running mean, to tell who is turned away when to come back."""

    @property
    def busy(self) -> int:
        """How many calls run."""
        return self._busy

    @property
    def queued(self) -> int:
        """How many calls wait for a slot."""
        return len(self._waiting)

    async def enter(self) -> float:
        """Wait for the right to run a call, and answer when it began; ``leave`` must follow.

        Raises:
            Unavailable: where as many as may wait do already, or the server is stopping.
        """
        if self._stopping:
            raise _stopping()
        if self._busy < self._slots:
            self._busy += 1
        else:
            await self._wait()
        return time.perf_counter()

    def leave(self, began: float) -> None:
        """Give the right to run a call to the next in line."""
        self._pace += 0.1 * (time.perf_counter() - began - self._pace)
        self._pass_on()

    async def _wait(self) -> None:
        if len(self._waiting) >= self._queue:
            seconds = min(60, max(1, math.ceil(self._pace * self._queue / self._slots)))
            raise Unavailable(f"busy, try again in {seconds} s", retry_after=seconds)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._pass_on()  # it was our turn already
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def turn_away(self) -> None:
        """Let nobody enter any more, and turn those away who wait."""
        self._stopping = True
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(_stopping())

    def _pass_on(self) -> None:
        # The slot goes from hand to hand, so that nobody who comes now overtakes those who wait.
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._busy -= 1

    def take(self, key: Key) -> WorkerProcess | None:
        """A warm worker that holds the key's program, if there is one."""
        workers = self._by_key.get(key)
        while workers:
            worker = workers.pop()
            if not workers:
                del self._by_key[key]
            del self._idle[worker]
            if worker.alive:
                return worker
        return None

    async def fresh(self) -> WorkerProcess:
        """A worker that holds no program yet."""
        while self._spares:
            worker = self._spares.popleft()
            if worker.alive:
                return worker
        self._make_room(self._busy)
        return await self._spawn(False)

    def _make_room(self, busy: int) -> None:
        while self._idle and busy + len(self._idle) + len(self._spares) > self._processes:
            self._end_oldest("The worker made room for another.")

    def _end_oldest(self, why: str) -> None:
        worker, (key, _) = self._idle.popitem(last=False)
        self._by_key[key].remove(worker)
        if not self._by_key[key]:
            del self._by_key[key]
        worker.kill("cancelled", why)

    def give_back(self, worker: WorkerProcess, key: Key | None) -> None:
        """Keep a worker for later calls of its key; None ends it. Spares are refilled now, after the call."""
        if len(self._spares) < self._spare_target:
            self._refill.set()
        if not worker.alive:
            return
        old = time.monotonic() - worker.born > self._oldest
        if key is None or old or worker.calls >= self._calls_per_worker:
            worker.kill("cancelled", "The worker was retired.")
            return
        self._idle[worker] = Rest(key, time.monotonic())
        self._by_key.setdefault(key, []).append(worker)
        self._make_room(self._busy - 1)  # whose slot is still held

    async def keep_spares(self) -> None:
        """Refill the spares whenever a call has used one, for ever."""
        while True:
            while len(self._spares) < self._spare_target:
                try:
                    self._spares.append(await self._spawn(True))
                except Unavailable as error:
                    await asyncio.sleep(error.retry_after)
            await self._refill.wait()
            self._refill.clear()

    async def retire_unused(self) -> None:
        """End the workers that nobody has used for long, for ever."""
        while True:
            await asyncio.sleep(self._longest_rest / 10)
            while self._idle and next(iter(self._idle.values())).since < time.monotonic() - self._longest_rest:
                self._end_oldest("The worker was not used for long.")


def _stopping() -> Unavailable:
    return Unavailable("The server is stopping, and runs no more calls.")
