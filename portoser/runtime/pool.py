"""Which worker runs which call: slots, handed out to callers by turns, and which workers are kept warm."""

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable
from typing import NamedTuple

from portoser.catalog.allowance import USUAL_SCRATCH
from portoser.catalog.errors import Unavailable
from portoser.runtime.process import WorkerProcess
from portoser.runtime.turns import Turns

_LOOK = 10.0
"""Seconds between two looks at the workers that rest."""
_RESTLESS = "The worker went on working after its call."
_LONGEST_ADVICE = 60
"""Seconds after which whoever was turned away may try again, however long the line is."""


class Key(NamedTuple):
    """What a worker is bound to. What a tool leaves behind in its process, it leaves to the same caller alone: that a
    tool calls itself read-only says nothing of what it remembers.
    """

    digest: str
    caller: Hashable
    """All that a tool's code may know of its caller, and how it was established who that is."""


class Rest(NamedTuple):
    """What an idle worker holds, and since when, by the monotonic clock."""

    key: Key
    since: float


class Pool:
    """Bounds how many calls run and how many wait, and keeps workers warm.

    ``slots`` calls run at once; ``queue`` more wait, those of each caller in the order in which they came, and the
    callers by turns. At most ``processes`` workers live; where one more is needed, two idle ones are drawn by lot and
    the one of them that was used longer ago makes room. One that was not used for ``longest_rest`` seconds is ended,
    so that its memory comes back. ``spawn`` is given the environment that the worker is to have, None for none, and
    whether it is to be warmed. Slots are shared by all environments; each that is in use has a spare of its own.
    """

    def __init__(
        self,
        spawn: Callable[[str | None, bool, int], Awaitable[WorkerProcess]],
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
        self._processes = max(processes, slots)
        self._spare_target = spares
        self._calls_per_worker = calls_per_worker
        self._oldest = oldest
        self._longest_rest = longest_rest
        self._stopping = False
        self._busy = 0
        self._aside = 0
        """How many calls wait for a person: they hold a worker, and no slot."""
        self._running = 0
        self._began = 0.0
        """The sum of the moments at which the running calls began."""
        self._turns = Turns(queue, self._turned_away)
        self._idle: OrderedDict[WorkerProcess, Rest] = OrderedDict()
        self._by_key: dict[Key, list[WorkerProcess]] = {}
        self._spares: dict[str | None, deque[WorkerProcess]] = {None: deque()}
        self._used: set[str | None] = set()
        """The environments of which a worker was asked for since the spares were filled."""
        self._refill = asyncio.Event()
        self._pace = 0.05
        """How long a call takes, in seconds: a running mean."""

    @property
    def busy(self) -> int:
        """How many calls run."""
        return self._busy

    @property
    def queued(self) -> int:
        """How many calls wait for a slot."""
        return len(self._turns)

    async def enter(self, who: Hashable) -> float:
        """Wait for the right to run a call for ``who``, and answer when it began; ``leave`` must follow.

        Raises:
            Unavailable: where as many as may wait do already, or the server is stopping.
        """
        if self._stopping:
            raise _stopping()
        if self._busy < self._slots:
            self._busy += 1
        else:
            await self._wait(who)
        began = time.perf_counter()
        self._running += 1
        self._began += began
        return began

    def leave(self, began: float) -> None:
        """Give the right to run a call to the next in line."""
        self._running -= 1
        self._began -= began
        self._pace += 0.1 * (time.perf_counter() - began - self._pace)
        self._pass_on()

    async def _wait(self, who: Hashable) -> None:
        turn = self._turns.join(who)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._turns.give_up(who, turn)
            elif turn.exception() is None:
                self._pass_on()  # it was our turn already
            raise

    def _turned_away(self) -> Unavailable:
        """What they hear who find the line full: come back when those who wait now have had their turn."""
        # How old the running calls are, on average: calls that hang have not told the pace yet.
        running = time.perf_counter() - self._began / self._running if self._running else 0.0
        seconds = math.ceil(max(self._pace, running) * (self.queued + self._busy) / self._slots)
        seconds = min(_LONGEST_ADVICE, max(1, seconds))
        return Unavailable(f"busy, try again in {seconds} s", retry_after=seconds)

    def turn_away(self) -> None:
        """Let nobody enter any more, and turn those away who wait."""
        self._stopping = True
        self._turns.turn_away(_stopping)

    def step_aside(self) -> bool:
        """Let the next in line run while a call waits for a person; False where too many have done so already."""
        if self._aside >= self._processes:
            return False
        self._aside += 1
        self._pass_on()
        return True

    def step_back(self) -> None:
        """The call goes on: there may be one more than slots, until one ends."""
        self._aside -= 1
        self._busy += 1

    def _pass_on(self) -> None:
        # The slot goes from hand to hand, so that nobody who comes now overtakes those who wait.
        if self._busy > self._slots or self._turns.next() is None:
            self._busy -= 1

    def take(self, key: Key) -> WorkerProcess | None:
        """A warm worker that holds the key's program, if there is one."""
        workers = self._by_key.get(key)
        while workers:
            worker = workers.pop()
            if not workers:
                del self._by_key[key]
            del self._idle[worker]
            if worker.is_restless:
                worker.kill("cancelled", _RESTLESS)
            elif worker.alive:
                return worker
        return None

    async def fresh(self, environment: str | None = None, disk: int = USUAL_SCRATCH) -> WorkerProcess:
        """A worker of an environment that holds no program yet, whose scratch folder holds ``disk`` bytes."""
        if environment is not None:
            self._used.add(environment)
        spares = self._spares.get(environment) if disk == USUAL_SCRATCH else None
        while spares:
            worker = spares.popleft()
            if worker.alive:
                return worker
        self._make_room(self._busy)
        return await self._spawn(environment, False, disk)

    def _make_room(self, busy: int) -> None:
        while self._idle and busy + self._aside + len(self._idle) + self._spare > self._processes:
            place = min(random.randrange(len(self._idle)), random.randrange(len(self._idle)))  # noqa: S311 - a choice of victim
            self._end(next(itertools.islice(self._idle, place, None)), "The worker made room for another.")

    @property
    def _spare(self) -> int:
        return sum(map(len, self._spares.values()))

    def _end(self, worker: WorkerProcess, why: str) -> None:
        key = self._idle.pop(worker).key
        self._by_key[key].remove(worker)
        if not self._by_key[key]:
            del self._by_key[key]
        worker.kill("cancelled", why)

    def give_back(self, worker: WorkerProcess, key: Key | None) -> None:
        """Keep a worker for later calls of its key; None ends it. Spares are refilled now, after the call."""
        if self._used or len(self._spares[None]) < self._spare_target:
            self._refill.set()
        if not worker.alive:
            return
        if key is None or self.is_worn_out(worker):
            worker.kill("cancelled", "The worker was retired.")
            return
        self._idle[worker] = Rest(key, time.monotonic())
        self._by_key.setdefault(key, []).append(worker)
        self._make_room(self._busy - 1)  # whose slot is still held

    def is_worn_out(self, worker: WorkerProcess) -> bool:
        """Whether a worker has run so many calls, or lives so long, that it should have no more."""
        return worker.calls >= self._calls_per_worker or time.monotonic() - worker.born > self._oldest

    async def keep_spares(self) -> None:
        """Refill the spares whenever a call has used one, for ever."""
        while True:
            spares = self._spares[None]
            while len(spares) < self._spare_target:
                try:
                    spares.append(await self._spawn(None, True, USUAL_SCRATCH))
                except Unavailable as error:
                    await asyncio.sleep(error.retry_after)
            used, self._used = self._used, set()
            for environment in used:
                await self._keep_spare(environment)
            await self._refill.wait()
            self._refill.clear()

    async def _keep_spare(self, environment: str | None) -> None:
        """Have one spare of an environment that is in use, and forget those that ended with theirs."""
        for known in [each for each in self._spares if each is not None]:
            if not any(worker.alive for worker in self._spares[known]):
                del self._spares[known]
        if self._spare_target and environment not in self._spares:
            with contextlib.suppress(Unavailable):  # whoever needs one is told
                self._spares[environment] = deque((await self._spawn(environment, True, USUAL_SCRATCH),))

    async def retire_unused(self) -> None:
        """End the workers that nobody has used for long, and those that work where they should rest, for ever."""
        while True:
            await asyncio.sleep(min(self._longest_rest / 10, _LOOK))
            long_ago = time.monotonic() - self._longest_rest
            for worker, rest in list(self._idle.items()):
                if rest.since < long_ago:
                    self._end(worker, "The worker was not used for long.")
                elif worker.is_restless:
                    self._end(worker, _RESTLESS)


def _stopping() -> Unavailable:
    return Unavailable("The server is stopping, and runs no more calls.")
